# SPDX-License-Identifier: Apache-2.0
import hashlib
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common import lock
from src.common.errors import UserError
from src.data.binary import CIFAR10, CIFAR100, ImageSet, read_set, write_cifar10, write_notes
from src.data.prepare import commands as prepare
from src.data.prepare import shapes
from src.data.prepare.cifar import prepare_cifar
from src.data.prepare.commands import main
from tests.data.prepare.tars import pack as pack_tar

SIZES = b'{"data_batch_1.bin": 20, "test_batch.bin": 6}'


@pytest.fixture
def archive(tmp_path, make_set):
    """An archive of 20 training and 6 test images with the classes of CIFAR-10."""
    return pack(tmp_path, make_set(20), make_set(6, seed=1))


def pack(tmp_path, train, test, class_names=CIFAR10.classes, drop=()):
    folder = tmp_path / "packed" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    write_cifar10(folder, *(ImageSet(part.images, part.labels, class_names) for part in (train, test)))
    for name in drop:
        (folder / name).unlink()
    path = tmp_path / "copy.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    shutil.rmtree(tmp_path / "packed")
    return path


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def run(capsys, *arguments):
    """Runs a command; returns the exit code, standard output and standard error."""
    try:
        code = main([str(argument) for argument in arguments])
    except UserError as error:
        code = 2
        print(error, file=sys.stderr)
    captured = capsys.readouterr()
    if code == 2:
        assert len(captured.err.splitlines()) == 1, captured.err
    return code, captured.out, captured.err


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_is_unpacked_and_a_second_call_does_nothing(tmp_path, archive, make_set, capsys):
    out = tmp_path / "data"
    arguments = ("cifar10", "--output_path", out, "--archive", archive, "--md5", "skip")
    code, printed, _ = run(capsys, *arguments)
    assert code == 0 and "20 training and 6 test images" in printed and f"--data_path {out}" in printed
    assert [path.name for path in out.iterdir()] == ["cifar-10-batches-bin"]
    np.testing.assert_array_equal(read_set(CIFAR10, out, "train").images, make_set(20).images)
    before = contents(out)
    archive.unlink()
    code, printed, _ = run(capsys, *arguments)
    assert code == 0 and "already in place" in printed and contents(out) == before


def test_the_folder_can_be_read_by_others(tmp_path, archive):
    prepare_cifar(CIFAR10, tmp_path / "data", archive=archive, md5="skip")
    assert (tmp_path / "data" / "cifar-10-batches-bin").stat().st_mode & 0o777 == 0o755


def test_the_md5_of_an_archive_is_compared(tmp_path, archive, capsys):
    out = tmp_path / "data"
    code, _, error = run(capsys, "cifar10", "--output_path", out, "--archive", archive)
    assert code == 2 and CIFAR10.md5 in error and md5(archive) in error and "--md5 skip" in error
    assert contents(out) == {}
    code, *_ = run(capsys, "cifar10", "--output_path", out, "--archive", archive, "--md5", "skip")
    assert code == 0 and len(read_set(CIFAR10, out, "test")) == 6


def test_a_missing_archive_is_named(tmp_path, capsys):
    code, _, error = run(capsys, "cifar10", "--output_path", tmp_path, "--archive", tmp_path / "no.tar.gz")
    assert code == 2 and "no.tar.gz" in error


def test_an_archive_is_unpacked_from_any_folder_in_it_and_nothing_else_is(tmp_path, archive):
    with tarfile.open(archive) as tar:
        data = {Path(member.name).name: tar.extractfile(member).read() for member in tar if member.isfile()}
    others = {"readme.html": b"<html>", "mine.txt": b"x"}
    for number, prefix in enumerate(("./", "", "some/where/")):
        members = [(prefix + name, content) for name, content in {**data, **others}.items()]
        members = [member for member in members if "sizes" not in member[0]] + [
            (prefix + "sizes.json", SIZES)
        ]
        prepare_cifar(CIFAR10, tmp_path / str(number), archive=pack_tar(archive, members), md5="skip")
        folder = tmp_path / str(number) / "cifar-10-batches-bin"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == data
    twice = [("one/batches.meta.txt", b"a\n"), ("two/batches.meta.txt", b"b\n")]
    with pytest.raises(UserError, match="two files named batches"):
        prepare_cifar(CIFAR10, tmp_path / "out", archive=pack_tar(archive, twice), md5="skip")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_prepared_carries_checksums(tmp_path, archive):
    prepare_cifar(CIFAR10, tmp_path, archive=archive, md5="skip")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"data_batch_1\.bin is damaged or was changed"):
        read_set(CIFAR10, tmp_path, "train")


def test_a_truncated_archive_leaves_nothing_behind(tmp_path, archive, capsys):
    archive.write_bytes(archive.read_bytes()[:-1000])
    out = tmp_path / "data"
    code, _, error = run(capsys, "cifar10", "--output_path", out, "--archive", archive, "--md5", "skip")
    assert code == 2 and str(archive) in error and list(out.iterdir()) == []


def test_an_archive_that_lacks_a_file_or_is_of_other_classes_is_refused(tmp_path, make_set, capsys):
    sets, out = (make_set(20), make_set(6)), tmp_path / "data"
    archive = pack(tmp_path, *sets, drop=["test_batch.bin"])
    arguments = ("cifar10", "--output_path", out, "--archive", archive, "--md5", "skip")
    code, _, error = run(capsys, *arguments)
    assert code == 2 and f"{archive} does not hold the whole data set: test_batch.bin is missing" in error
    pack(tmp_path, *sets, class_names=shapes.CLASS_NAMES)
    code, _, error = run(capsys, *arguments)
    assert code == 2 and "not CIFAR-10" in error and list(out.iterdir()) == []


def test_a_damaged_data_set_in_place_is_said_and_kept(tmp_path, archive, capsys):
    out = tmp_path / "data"
    prepare_cifar(CIFAR10, out, archive=archive, md5="skip")
    with (out / "cifar-10-batches-bin" / "data_batch_1.bin").open("ab") as file:
        file.write(b"x")
    before = contents(out)
    code, _, error = run(capsys, "cifar10", "--output_path", out, "--archive", archive, "--md5", "skip")
    assert code == 2 and "data_batch_1.bin" in error and "remove it" in error and contents(out) == before


def test_another_data_set_in_place_is_kept(tmp_path, archive, capsys):
    prepare_cifar(CIFAR10, tmp_path, archive=archive, md5="skip")
    before = contents(tmp_path)
    code, _, error = run(capsys, "shapes", "--output_path", tmp_path)
    assert code == 2 and "another data set (airplane" in error
    code, _, error = run(capsys, "folder", "--data_path", tmp_path, "--output_path", tmp_path)
    assert code == 2 and contents(tmp_path) == before


def test_a_download_goes_on_is_unpacked_and_not_repeated(tmp_path, archive, server, capsys):
    server.data, server.stop_after = archive.read_bytes(), 1000
    out, layout = tmp_path / "data", replace(CIFAR10, md5=md5(archive))
    arguments = {"url": server.url}
    with pytest.raises(UserError, match="--archive FILE"):
        prepare_cifar(layout, out, **arguments)
    server.stop_after = None
    prepare_cifar(layout, out, **arguments)
    assert server.requests == [None, "bytes=1000-"] and len(read_set(CIFAR10, out, "train")) == 20
    shutil.rmtree(out / "cifar-10-batches-bin")
    prepare_cifar(layout, out, **arguments)
    prepare_cifar(layout, out, **arguments)
    assert len(server.requests) == 2 and len(read_set(CIFAR10, out, "train")) == 20


def test_an_archive_with_another_md5_beside_the_data_is_downloaded_again(tmp_path, archive, server):
    server.data = archive.read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file.tar.gz").write_bytes(b"old")
    prepare_cifar(replace(CIFAR10, md5=md5(archive)), tmp_path / "data", url=server.url)
    assert server.requests == [None] and md5(tmp_path / "data" / "file.tar.gz") == md5(archive)


def test_cifar100_is_prepared_by_the_same_code(tmp_path, write_cifar100, server, capsys):
    folder = write_cifar100(tmp_path / "cifar-100-binary", {"train": 9, "test": 4})
    with tarfile.open(tmp_path / "copy.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-100-binary")
    archive, server.data = tmp_path / "copy.tar.gz", (tmp_path / "copy.tar.gz").read_bytes()
    out, from_archive = tmp_path / "data", ("--archive", tmp_path / "copy.tar.gz")

    code, _, error = run(capsys, "cifar100", "--output_path", out, *from_archive)
    assert code == 2 and "03b5dce01913d631647c71ecec9e9cb8" in error and list(out.iterdir()) == []
    code, printed, _ = run(capsys, "cifar100", "--output_path", out, *from_archive, "--md5", "skip")
    assert code == 0 and "9 training and 4 test images of 100 classes" in printed
    assert [path.name for path in out.iterdir()] == ["cifar-100-binary"]
    write_notes(CIFAR100, folder)
    assert contents(out / "cifar-100-binary") == contents(folder)
    code, printed, _ = run(capsys, "cifar100", "--output_path", out, *from_archive)
    assert code == 0 and "already in place" in printed

    prepare_cifar(replace(CIFAR100, md5=md5(archive)), tmp_path / "fresh", url=server.url)
    assert len(read_set(CIFAR100, tmp_path / "fresh", "train")) == 9 and server.requests == [None]
    code, _, error = run(capsys, "cifar10", "--output_path", out, *from_archive, "--md5", "skip")
    assert code == 2 and "not the binary version of CIFAR-10 (cifar-10-binary.tar.gz)" in error


def test_an_archive_of_other_names_is_not_cifar100(tmp_path, write_cifar100):
    folder = write_cifar100(tmp_path / "cifar-100-binary", {"train": 9, "test": 4})
    (folder / "fine_label_names.txt").write_text("".join(f"{k}\n" for k in range(100)))
    with tarfile.open(tmp_path / "copy.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-100-binary")
    with pytest.raises(UserError, match="not CIFAR-100"):
        prepare_cifar(CIFAR100, tmp_path / "data", archive=tmp_path / "copy.tar.gz", md5="skip")
    assert list((tmp_path / "data").iterdir()) == []


def test_calls_at_the_same_time_download_once(tmp_path, archive, server):
    server.data, out = archive.read_bytes(), tmp_path / "data"
    with ThreadPoolExecutor(4) as threads:
        layout = replace(CIFAR10, md5=md5(archive))
        calls = [threads.submit(prepare_cifar, layout, out, url=server.url) for _ in range(4)]
        for call in calls:
            call.result()
    assert server.requests == [None] and len(read_set(CIFAR10, out, "train")) == 20
    assert sorted(path.name for path in out.iterdir()) == ["cifar-10-batches-bin", "file.tar.gz"]


def test_a_folder_that_cannot_be_made_or_locked_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    code, _, error = run(capsys, "shapes", "--output_path", tmp_path / "file" / "data")
    assert code == 2 and "cannot write" in error

    def refuse(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    code, _, error = run(capsys, "shapes", "--output_path", tmp_path / "data")
    assert code == 2 and "cannot lock" in error and "Input/output error" in error


def test_shapes_are_drawn_once_and_checked_after(tmp_path, capsys):
    out = tmp_path / "data"
    arguments = ("shapes", "--output_path", out, "--train_images", 30, "--test_images", 20)
    code, printed, _ = run(capsys, *arguments)
    assert code == 0 and "30 training and 20 test images of 10 classes" in printed
    for split, count in (("train", 30), ("test", 20)):
        data, drawn = read_set(CIFAR10, out, split), shapes.draw_shapes(0, split, count)
        np.testing.assert_array_equal(data.images, drawn.images)
        np.testing.assert_array_equal(data.labels, drawn.labels)
        assert data.class_names == shapes.CLASS_NAMES
    before = contents(out)
    code, printed, _ = run(capsys, *arguments)
    assert code == 0 and "already in place" in printed
    for other in (("--seed", 1), ("--train_images", 31)):
        code, _, error = run(capsys, *arguments, *other)
        assert code == 2 and "another seed or number" in error
    assert contents(out) == before


def test_a_folder_of_images_is_packed_and_unreadable_ones_are_named(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for k in range(5):
            Image.new("RGB", (40, 50), (k, k, k)).save(tmp_path / "mine" / name / f"{k}.jpg")
    (tmp_path / "mine" / "dog" / "broken.jpg").write_bytes(b"x")
    out = tmp_path / "data"
    arguments = ("folder", "--data_path", tmp_path / "mine", "--output_path", out)
    code, printed, error = run(capsys, *arguments, "--val_fraction", 0.4)
    assert code == 0 and "1 unreadable" in printed and "broken.jpg" in error
    assert len(read_set(CIFAR10, out, "train")) + len(read_set(CIFAR10, out, "test")) == 10
    assert read_set(CIFAR10, out, "test").class_names == ("cat", "dog")
    code, _, error = run(capsys, *arguments)
    assert code == 2 and "exists already" in error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "command"),
        (("mnist",), "mnist"),
        (("imagenet", "--output_path", "x"), "--data_path"),
        (("cifar10",), "--output_path"),
        (("cifar10", "--output_path", "x", "--sed", "1"), "--sed"),
        (("shapes", "--output_path", "x", "--seed", "one"), "--seed"),
        (("shapes", "--output_path", "x", "--seed", "-1"), "--seed"),
        (("shapes", "--output_path", "x", "--test_images", "0"), "--test_images"),
        (("folder", "--output_path", "x"), "--data_path"),
        (("folder", "--data_path", "y", "--output_path", "x"), "y is not a folder"),
        (("folder", "--data_path", "y", "--output_path", "x", "--val_fraction", "0"), "--val_fraction"),
        (("folder", "--data_path", "y", "--output_path", "x", "--val_fraction", "nan"), "--val_fraction"),
        (("folder", "--data_path", "y", "--output_path", "x", "--seed", "-1"), "--seed"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, printed, error = run(capsys, *arguments)
    assert code == 2 and named in error and printed == "" and list(tmp_path.iterdir()) == []


def test_the_module_is_a_command(tmp_path):
    root = Path(prepare.__file__).parents[3]
    command = [sys.executable, "-m", "src.data.prepare", "shapes", "--output_path", str(tmp_path)]
    small = ["--train_images", "2", "--test_images", "1"]
    done = subprocess.run([*command, *small], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "2 training and 1 test images" in done.stdout
    failed = subprocess.run([*command, "--seed", "1"], cwd=root, capture_output=True, text=True, check=False)
    assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1


def test_samples_of_a_folder_keep_their_size(tmp_path, capsys):
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), (9, 8, 7)).save(tmp_path / "mine" / name / "x.png")
    code, *_ = run(capsys, "samples", "--data_path", tmp_path / "mine", "--output_path", tmp_path / "png")
    assert code == 0 and Image.open(tmp_path / "png" / "00_cat.png").size == (40, 50)


def test_samples_are_the_first_test_images(tmp_path, make_set, capsys):
    (tmp_path / "set").mkdir()
    write_cifar10(tmp_path / "set", make_set(5), make_set(3, seed=1))
    code, out, _ = run(capsys, "samples", "--data_path", tmp_path / "set", "--output_path", tmp_path / "png")
    assert code == 0 and "3 test images" in out
    test = read_set(CIFAR10, tmp_path / "set", "test")
    files = sorted((tmp_path / "png").iterdir())
    assert [path.stem for path in files] == [
        f"{number:02d}_{test.class_names[label]}" for number, label in enumerate(test.labels)
    ]
    for path, image in zip(files, test.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), image)
