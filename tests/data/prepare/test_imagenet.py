# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from src.common.errors import UserError
from src.common.files import MARKER
from src.data.decode import decode
from src.data.prepare import imagenet as module
from src.data.prepare.commands import main
from src.data.prepare.imagenet import DEVKIT_NAME, ILSVRC2012, TRAIN_NAME, VAL_NAME, Release, prepare_imagenet
from src.data.sources import open_split
from tests.data.prepare.tars import pack
from tests.helpers.errors import fails

WNIDS = ("n00000009", "n00000020", "n00000300")
TRAIN_COUNTS = dict(zip(WNIDS, (4, 6, 5)))
NUMBERS = {1: WNIDS[2], 2: WNIDS[0], 3: WNIDS[1]}  # not in the order of the wnids
VAL_NUMBERS = (3, 1, 1, 2, 3, 2)
PNG, CMYK = "n00000009_1.JPEG", "n00000009_2.JPEG"


def picture(name):
    """The pixels of an image, smooth and of its own colour: JPEG keeps them within a few grey levels."""
    seed = int.from_bytes(hashlib.md5(name.encode()).digest()[:4], "big")
    colour = np.random.default_rng(seed).integers(40, 216, 3)
    return (np.linspace(-30, 30, 12)[:, None, None] + colour + np.zeros((12, 10, 1))).astype(np.uint8)


def encode(name):
    image, file = Image.fromarray(picture(name)), io.BytesIO()
    if name == PNG:
        image.save(file, "PNG")
    else:
        (image.convert("CMYK") if name == CMYK else image).save(file, "JPEG", quality=98, subsampling=0)
    return file.getvalue()


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def write_train(folder, extra=(), extra_inside=()):
    classes = []
    for wnid, count in TRAIN_COUNTS.items():
        names = [f"{wnid}_{k}.JPEG" for k in range(1, count + 1)]
        members = [(name, encode(name)) for name in names]
        inside = list(extra_inside) if wnid == WNIDS[1] else []
        classes.append((f"{wnid}.tar", pack(folder / "class.tar", members + inside, "w").read_bytes()))
    (folder / "class.tar").unlink()
    return pack(folder / TRAIN_NAME, [*classes, *extra], "w").read_bytes()


def write_val(folder, extra=()):
    names = [f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, len(VAL_NUMBERS) + 1)]
    members = [*((name, encode(name)) for name in names), *extra]
    return pack(folder / VAL_NAME, members, "w").read_bytes()


def write_devkit(folder):
    fields = ["ILSVRC2012_ID", "WNID", "words", "num_children"]
    rows = [(number, wnid, "a, b", 0) for number, wnid in NUMBERS.items()] + [(4, "n09999999", "all", 3)]
    synsets = np.array(rows, dtype=[(field, object) for field in fields])[:, None]
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{number}\n" for number in VAL_NUMBERS).encode()
    data = "ILSVRC2012_devkit_t12/data"
    members = [
        special(data, tarfile.DIRTYPE),
        (f"{data}/ILSVRC2012_validation_ground_truth.txt", truth),
        (f"{data}/meta.mat", meta.getvalue()),
    ]
    return pack(folder / DEVKIT_NAME, members).read_bytes()


def write_labels(folder):
    path = folder / "val.txt"
    lines = [f"ILSVRC2012_val_{k:08d}.JPEG {NUMBERS[number]}\n" for k, number in enumerate(VAL_NUMBERS, 1)]
    path.write_text("".join(lines))
    return path


class Made:
    """Three small archives, what is known of them, and where they are unpacked."""

    def __init__(self, root):
        self.archives, self.out = root / "archives", root / "data"
        self.archives.mkdir()
        train, val, devkit = (write(self.archives) for write in (write_train, write_val, write_devkit))
        archives = {TRAIN_NAME: train, VAL_NAME: val, DEVKIT_NAME: devkit}
        md5 = {name: hashlib.md5(data).hexdigest() for name, data in archives.items()}
        self.release = Release(md5, classes=3, train_images=15, val_a_class=2)

    def prepare(self, **options):
        prepare_imagenet(self.archives, self.out, release=self.release, **options)

    def fails(self, **options):
        return fails(self.prepare, **options)

    def check(self, *splits):
        """That these splits are whole and nothing else is there."""
        expected = {}
        if "train" in splits:
            for wnid, count in TRAIN_COUNTS.items():
                names = (f"{wnid}_{k}.JPEG" for k in range(1, count + 1))
                expected |= {f"train/{wnid}/{name}": encode(name) for name in names}
        if "val" in splits:
            for k, number in enumerate(VAL_NUMBERS, 1):
                name = f"ILSVRC2012_val_{k:08d}.JPEG"
                expected[f"val/{NUMBERS[number]}/{name}"] = encode(name)
        files = [path for path in self.out.rglob("*") if path.is_file()]
        assert {str(path.relative_to(self.out)): path.read_bytes() for path in files} == expected
        assert {path.name for path in self.out.iterdir()} == set(splits)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def stop_in_class(monkeypatch, number):
    """Has the run stop, as Ctrl-C does, when one image of the class of this number (from 1) is written."""
    unpacked = []

    def unpack_class(archive, stream, folder):
        unpacked.append(folder.name)
        if len(unpacked) == number:
            folder.mkdir()
            (folder / f"{folder.name}_1.JPEG").write_bytes(b"half an im")
            raise KeyboardInterrupt
        real(archive, stream, folder)

    real = module._unpack_class
    monkeypatch.setattr(module, "_unpack_class", unpack_class)
    return unpacked


def test_what_is_known_of_the_release():
    assert ILSVRC2012.classes * ILSVRC2012.val_a_class == 50_000
    digests = set(ILSVRC2012.md5.values())
    assert {len(bytes.fromhex(digest)) for digest in digests} == {16} and len(digests) == 3


@pytest.mark.parametrize("md5", ["check", "skip"])
def test_the_archives_become_folders_that_can_be_trained_on(made, md5, capsys):
    made.prepare(md5=md5)
    made.check("train", "val")
    printed = capsys.readouterr()
    assert "15 images in train and 6 images in val, of 3 classes" in printed.out and printed.err == ""
    assert printed.out.endswith(f"use it with --data_path {made.out}\n")
    train, test = open_split(made.out, "train"), open_split(made.out, "test")
    assert train.class_names == WNIDS and np.bincount(train.labels).tolist() == [4, 6, 5]
    assert [test.class_names[label] for label in test.labels] == sorted(NUMBERS[n] for n in VAL_NUMBERS)


@pytest.mark.parametrize("name", [PNG, CMYK, "n00000009_3.JPEG"], ids=["png", "cmyk", "plain"])
def test_the_odd_images_are_decoded(made, name):
    """One image of ImageNet is a PNG and 22 are CMYK, all with the name of a JPEG."""
    made.prepare()
    path = made.out / "train" / WNIDS[0] / name
    with Image.open(path) as image:
        assert (image.format, image.mode) == {PNG: ("PNG", "RGB"), CMYK: ("JPEG", "CMYK")}.get(
            name, ("JPEG", "RGB")
        )
    assert np.abs(decode(path).astype(int) - picture(name)).max() <= 6


def test_a_second_call_verifies_without_the_archives(made, capsys):
    made.prepare()
    shutil.rmtree(made.archives)
    made.prepare()
    made.check("train", "val")
    assert "already in place, checked: 15 images in train" in capsys.readouterr().out

    (made.out / "val" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG").unlink()
    message = made.fails()
    assert f"{made.out}/val/{WNIDS[1]}: 1 images, expected 2; remove {made.out}/val" in message
    shutil.rmtree(made.out / "val" / WNIDS[1])
    assert "val: 2 classes, expected 3" in made.fails()
    shutil.rmtree(made.out / "val")
    (made.out / "train" / WNIDS[1] / "n00000020_6.JPEG").unlink()
    assert "train: 14 images, expected 15" in made.fails()


@pytest.mark.parametrize("md5", ["check", "skip"])
def test_a_stopped_run_goes_on_with_its_class(made, md5, monkeypatch):
    unpacked = stop_in_class(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        made.prepare(md5=md5)
    assert not (made.out / "train").exists()
    with (made.out / ".quartet-unfinished-train" / MARKER).open("a") as marker:
        marker.write(WNIDS[1][:5])  # what a kill can leave
    made.prepare(md5=md5)
    assert unpacked == [WNIDS[0], WNIDS[1], WNIDS[1], WNIDS[2]]
    made.check("train", "val")


def test_a_folder_in_the_way_that_we_did_not_make_stays(made):
    (made.out / ".quartet-unfinished-train").mkdir(parents=True)
    (made.out / ".quartet-unfinished-train" / "mine").write_text("precious")
    assert "unfinished-train exists already" in made.fails()
    for name in (".train.mine", ".val.mine", ".quartet-train-mine"):
        (made.out / name).mkdir()
    (made.out / ".quartet-unfinished-train").rename(made.out / ".train.d")
    made.prepare()
    assert (made.out / ".train.d" / "mine").read_text() == "precious"
    assert all((made.out / name).is_dir() for name in (".train.mine", ".val.mine", ".quartet-train-mine"))


def test_a_run_with_another_archive_begins_anew(made, monkeypatch):
    unpacked = stop_in_class(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        made.prepare()
    data = (made.archives / TRAIN_NAME).read_bytes() + bytes(10240)
    (made.archives / TRAIN_NAME).write_bytes(data)
    made.release.md5[TRAIN_NAME] = hashlib.md5(data).hexdigest()
    made.prepare()
    assert unpacked == [*WNIDS, *WNIDS]
    made.check("train", "val")


@pytest.mark.parametrize("name", [TRAIN_NAME, VAL_NAME, DEVKIT_NAME])
def test_a_wrong_md5_leaves_nothing_of_that_archive(made, name):
    path = made.archives / name
    data = path.read_bytes() + bytes(10240)
    path.write_bytes(data)
    message = made.fails()
    assert str(path) in message and hashlib.md5(data).hexdigest() in message and "--md5 skip" in message
    made.check(*(["val"] if name == TRAIN_NAME else []))
    made.prepare(md5="skip")
    made.check("train", "val")


@pytest.mark.parametrize("md5", ["check", "skip"])
@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("name", [TRAIN_NAME, VAL_NAME])
def test_a_truncated_archive_leaves_nothing(made, name, share, md5):
    path = made.archives / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert str(path) in made.fails(md5=md5)
    made.check(*(["val"] if name == TRAIN_NAME else []))


@pytest.mark.parametrize(
    "member",
    [
        ("../n00000400.tar", b"x"),
        ("/n00000400.tar", b"x"),
        ("n00000400.zip", b"x"),
        special("n00000400.tar", tarfile.SYMTYPE),
    ],
    ids=["parent", "absolute", "other kind", "link"],
)
def test_an_unexpected_member_of_the_training_archive_is_refused(made, member):
    write_train(made.archives, extra=[member])
    assert "n00000400" in made.fails(md5="skip")
    made.check("val")
    assert not list(made.out.parent.glob("n0*"))


@pytest.mark.parametrize("member", [("../n00000020_9.JPEG", b"x"), ("n00000300_9.JPEG", b"x")])
def test_an_unexpected_member_of_a_class_is_refused(made, member):
    write_train(made.archives, extra_inside=[member])
    message = made.fails(md5="skip")
    assert repr(member[0]) in message and "n00000020.tar" in message
    made.check("val")


@pytest.mark.parametrize(
    "member",
    [("../ILSVRC2012_val_00000001.JPEG", b"x"), special("ILSVRC2012_val_00000001.JPEG", tarfile.LNKTYPE)],
    ids=["parent", "link"],
)
def test_an_unexpected_member_of_the_val_archive_is_refused(made, member):
    write_val(made.archives, extra=[member])
    assert "ILSVRC2012_val_00000001.JPEG" in made.fails(md5="skip")
    made.check()


def test_val_labels_of_a_text_file(made):
    (made.archives / DEVKIT_NAME).unlink()
    made.prepare(val_labels=write_labels(made.archives))
    made.check("train", "val")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ILSVRC2012_val_00000006.JPEG ../../../x", "val.txt, line 6"),
        ("", "ILSVRC2012_val_00000006.JPEG of "),
        ("ILSVRC2012_val_00000006.JPEG n00000020", "n00000009: 1 images, expected 2"),
        ("ILSVRC2012_val_00000006.JPEG n00000777", "n00000009: 1 images, expected 2"),
    ],
    ids=["no wnid", "no label", "wrong class", "unknown class"],
)
def test_wrong_val_labels_are_said(made, line, expected):
    path = write_labels(made.archives)
    path.write_text("\n".join([*path.read_text().splitlines()[:-1], line]).rstrip("\n"))
    assert expected in made.fails(val_labels=path)
    made.check()


def test_classes_of_val_that_are_not_trained_are_said(made):
    path = write_labels(made.archives)
    path.write_text(path.read_text().replace("n00000009", "n00000008"))
    assert "the class n00000008 is in val alone" in made.fails(val_labels=path)


def test_missing_val_labels_do_not_keep_train_away(made, capsys):
    (made.archives / DEVKIT_NAME).unlink()
    made.prepare()
    made.check("train")
    printed = capsys.readouterr()
    assert DEVKIT_NAME in printed.err and "--val_labels" in printed.err
    assert "15 images in train, of 3 classes; use it with" in printed.out
    (made.archives / TRAIN_NAME).unlink()
    shutil.rmtree(made.out)
    assert TRAIN_NAME in (message := made.fails()) and DEVKIT_NAME in message


def test_val_alone_and_train_later(made, capsys):
    (made.archives / TRAIN_NAME).rename(made.archives / "later.tar")
    made.prepare()
    made.check("val")
    printed = capsys.readouterr()
    assert "6 images in val, of 3 classes; training images are not there" in printed.out
    assert f"skipped: {made.archives / TRAIN_NAME}" in printed.err
    (made.archives / "later.tar").rename(made.archives / TRAIN_NAME)
    made.prepare()
    made.check("train", "val")


def test_a_damaged_devkit_is_said(made):
    path = made.archives / DEVKIT_NAME
    for data in (path.read_bytes()[:200], pack(path, [("a", b"b")]).read_bytes()):
        path.write_bytes(data)
        assert f"{path} is damaged" in made.fails(md5="skip")


def test_the_space_is_checked_before_anything_is_written(made, monkeypatch):
    size = sum((made.archives / name).stat().st_size for name in (TRAIN_NAME, VAL_NAME))
    usage = SimpleNamespace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = made.fails()
    assert str(made.out) in message and "free space" in message
    made.check()
    unpacked = stop_in_class(monkeypatch, 3)
    usage.free = round(1.03 * size)
    with pytest.raises(KeyboardInterrupt):
        made.prepare()
    usage.free = round(0.5 * size)  # two of three classes are there
    made.prepare()
    assert unpacked[-1] == WNIDS[2]
    made.check("train", "val")


def test_the_command(made):
    common = ["imagenet", "--data_path", str(made.archives), "--output_path", str(made.out)]
    with pytest.raises(UserError, match=ILSVRC2012.md5[DEVKIT_NAME]):
        main(common)
    labels = str(write_labels(made.archives))
    with pytest.raises(UserError, match=r"val/n00000009: 2 images, expected 50"):
        main([*common, "--md5", "skip", "--val_labels", labels])
    with pytest.raises(UserError, match=TRAIN_NAME):
        main(["imagenet", "--data_path", str(made.out), "--output_path", str(made.out)])
