# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.batches import EvalBatches
from src.data.crops import PictureCrops
from src.data.mindrecord import (
    INDEX_NAME,
    MAX_SHARDS,
    MindRecordImages,
    open_mindrecord,
    write_index,
)
from src.data.preparation import Preparation
from src.data.prepare import mindrecord as mindrecord_writer
from src.data.prepare.commands import main, prepare_mindrecord
from src.data.resize import resize_box
from src.data.sources import open_split
from tests.helpers.batches import train_batches
from tests.helpers.errors import fails

CLASSES = ("ant", "bée", "cat")


def save(path, seed, width=70, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (50 + seed, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """13 images for training and 4 for tests, JPEG and PNG, one turned."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for k in range(13):
        name = f"train/{CLASSES[k % 3]}/{k:02d}"
        if k % 4 == 1:
            save(tmp_path / "images" / f"{name}.png", k)
        else:
            save(tmp_path / "images" / f"{name}.jpg", k, exif=turned if k == 2 else Image.Exif())
    for k in range(4):
        save(tmp_path / "images/val" / CLASSES[k % 3] / f"{k}.jpg", 20 + k)
    return tmp_path / "images"


@pytest.fixture
def record(tmp_path, folder):
    """The same in shards of 5, 4 and 4 images, and of 2, 1 and 1."""
    prepare_mindrecord(folder, tmp_path / "record", shards=3)
    return tmp_path / "record"


def opened(record):
    return {split: open_mindrecord(record, split) for split in ("train", "test")}


def contents(record):
    return {path.name: path.read_bytes() for path in record.iterdir()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_those_of_the_folder(folder, record, split):
    source, images = (open_split(path, split) for path in (folder, record))
    assert isinstance(images, MindRecordImages) and len(images) == len(source) == len(images.labels)
    assert images.class_names == source.class_names == CLASSES
    assert images.labels.dtype == np.int32 and images.labels.tolist() == source.labels.tolist()

    def plan(height, width, size):
        return resize_box((height // 4, 5, height // 2, width - 9), size, size, "bilinear")

    for index, file in enumerate(source.files):
        with open(file, "rb") as opened_file:
            assert images.read_bytes(index) == opened_file.read()
        np.testing.assert_array_equal(images.read(index), source.read(index))
        for size in (1, 100):
            crop = images.read(index, partial(plan, size=size))
            np.testing.assert_array_equal(crop, source.read(index, partial(plan, size=size)))
    taken = images.take([3, 0])
    assert len(taken) == 2 and taken.labels.tolist() == images.labels[[3, 0]].tolist()
    np.testing.assert_array_equal(taken.read(0), source.read(3))


def test_batches_are_those_of_the_folder(folder, record):
    how = Preparation(16, (0, 0, 0), (1, 1, 1))
    sources = [open_split(path, "train") for path in (folder, record)]
    both = (train_batches(PictureCrops, source, 16, mixup_alpha=0.2).batches(0, 7) for source in sources)
    both = [*zip(*both, strict=True)]
    assert len(both) == 7
    both += zip(*(EvalBatches(source, how, batch_size=4) for source in sources), strict=True)
    for left, right in both:
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_threads_read_the_same(record):
    images = open_mindrecord(record, "train")
    alone = [images.read_bytes(index) for index in range(len(images))]
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(images.read_bytes, [*range(len(images))] * 40))
    assert many == alone * 40


def test_mindspore_reads_the_shards(folder, record):
    from mindspore.dataset import MindDataset

    for name, split in (("train", "train"), ("val", "test")):
        source = open_split(folder, split)
        expected = {
            (file[len(f"{folder}/") :], label): open(file, "rb").read()  # noqa: SIM115
            for file, label in zip(source.files, source.labels.tolist(), strict=True)
        }
        shards = [str(record / f"{name}.mindrecord{k:03d}") for k in range(3)]
        rows = MindDataset(shards).create_dict_iterator(num_epochs=1, output_numpy=True)
        found = {(str(row["file_name"]), int(row["label"])): row["data"].tobytes() for row in rows}
        assert found == expected


def test_shards_of_many_pages_are_read(tmp_path):
    """Written by MindSpore alone, with pages that hold two or three images."""
    from mindspore.mindrecord import FileWriter

    rng = np.random.default_rng(0)
    rows = [
        {"file_name": f"{k}", "label": k % 3, "data": rng.bytes(9000 + 300 * k) + b"\0"} for k in range(25)
    ]
    writer = FileWriter(str(tmp_path / "train.mindrecord000"))
    writer.set_page_size(1 << 15)
    writer.add_schema({name: {"type": kind} for name, kind in
                       (("file_name", "string"), ("label", "int32"), ("data", "bytes"))})  # fmt: skip
    writer.add_index(["file_name", "label"])
    writer.write_raw_data(rows[:9])
    writer.write_raw_data(rows[9:])
    writer.commit()
    write_index(tmp_path, CLASSES, {"train": np.arange(25) % 3})
    images = open_mindrecord(tmp_path, "train")
    assert [images.read_bytes(k) for k in range(25)] == [row["data"] for row in rows]
    assert images.labels.tolist() == [row["label"] for row in rows]


class TestConverting:
    def test_each_shard_has_all_classes_and_no_other_files_are_left(self, record):
        names = {f"{name}.mindrecord00{k}{end}" for name in ("train", "val") for k in range(3) for end in
                 ("", ".db")}  # fmt: skip
        assert {path.name for path in record.iterdir()} == {*names, INDEX_NAME}
        assert {path.stat().st_mode & 0o777 for path in record.iterdir()} == {0o644}
        index = json.loads((record / INDEX_NAME).read_text())
        assert index["class_names"] == list(CLASSES)
        assert index["splits"]["train"]["images_per_class"] == [5, 4, 4]

    @pytest.mark.parametrize("changed", [False, True])
    def test_a_stopped_converter_goes_on_with_the_same_images(
        self, folder, record, tmp_path, monkeypatch, changed
    ):
        out, write, written = tmp_path / "stopped", mindrecord_writer._write_shard, []

        def stop(path, rows):
            written.append(path.name)
            if len(written) == 3:
                path.write_bytes(b"half")
                raise KeyboardInterrupt
            write(path, rows)

        monkeypatch.setattr(mindrecord_writer, "_write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_mindrecord(folder, out, shards=3)
        assert not out.exists() and (tmp_path / ".quartet-unfinished-stopped").is_dir()
        if changed:
            save(folder / "train" / CLASSES[0] / "99.png", 99)
            prepare_mindrecord(folder, tmp_path / "expected", shards=3)
        written[:] = [""] * 9
        prepare_mindrecord(folder, out, shards=3)
        names = [f"{name}.mindrecord00{k}" for name in ("train", "val") for k in range(3)]
        assert written[9:] == names[0 if changed else 2 :]
        assert not (tmp_path / ".quartet-unfinished-stopped").exists()
        left, right = opened(tmp_path / "expected" if changed else record), opened(out)
        for split, images in left.items():
            own = [images.read_bytes(k) for k in range(len(images))]
            assert own == [right[split].read_bytes(k) for k in range(len(images))]

    def test_a_complete_set_is_checked_and_never_touched(self, folder, record, capsys):
        before = contents(record)
        prepare_mindrecord(folder, record, shards=3)
        assert "already in place, checked: 13 training" in capsys.readouterr().out
        (folder / "val/ant/0.jpg").write_bytes((folder / "val/ant/0.jpg").read_bytes() + b"\0")
        assert f"{record} holds other images than {folder}" in fails(prepare_mindrecord, folder, record)
        save(folder / "train" / "ant" / "99.png", 99)
        assert f"{record} holds other images than {folder}" in fails(prepare_mindrecord, folder, record)
        assert contents(record) == before

    def test_what_we_did_not_make_stays(self, folder, tmp_path):
        """Old behaviour: every other file named train.mindrecord0... was removed."""
        out = tmp_path / "record"
        for place in (out, tmp_path / ".quartet-unfinished-record"):
            place.mkdir()
            (place / "train.mindrecord0").write_bytes(b"mine")
            assert f"{place} exists already" in fails(prepare_mindrecord, folder, out)
            assert (place / "train.mindrecord0").read_bytes() == b"mine"
            (place / "train.mindrecord0").unlink()
        prepare_mindrecord(folder, out, shards=1)

    def test_more_shards_than_images_and_then_fewer(self, folder, tmp_path):
        for shards, counts in ((MAX_SHARDS, (13, 4)), (2, (2, 2))):
            out = tmp_path / f"record {shards}"
            prepare_mindrecord(folder, out, shards=shards)
            assert tuple(len([*out.glob(f"{name}.*.db")]) for name in ("train", "val")) == counts
            images = open_mindrecord(out, "train")
            source = open_split(folder, "train")
            assert images.labels.tolist() == source.labels.tolist()
            np.testing.assert_array_equal(images.read(12), source.read(12))

    def test_a_folder_without_val_is_split(self, folder, tmp_path):
        prepare_mindrecord(folder / "train", tmp_path / "record", shards=2, val_fraction=0.3, seed=4)
        for split, images in opened(tmp_path / "record").items():
            source = open_split(folder / "train", split, val_fraction=0.3, seed=4)
            assert len(images) == len(source)
            np.testing.assert_array_equal(images.read(2), source.read(2))

    def test_damaged_images_are_refused_or_left_out(self, folder, tmp_path, capsys):
        (folder / "train/ant/bad.jpg").write_bytes(b"")
        arguments = ["mindrecord", "--data_path", str(folder), "--output_path", str(tmp_path / "record")]
        message = fails(main, arguments)
        assert "1 of 18 images is damaged (1 of 14 for training, 0 of 4 held out)" in message
        assert "train/ant/bad.jpg (the file is empty)" in message
        assert not (tmp_path / "record").exists()
        assert main([*arguments, "--damaged_images", "skip", "--shards", "1"]) == 0
        assert "13 training and 4 test images of 3 classes" in capsys.readouterr().out
        assert len(open_mindrecord(tmp_path / "record", "train")) == 13

    def test_an_image_that_fits_no_page_is_said(self, folder, tmp_path):
        with (folder / "val/ant/0.jpg").open("ab") as file:
            file.truncate(40 << 20)
        message = fails(prepare_mindrecord, folder, tmp_path / "record", shards=1)
        assert "val.mindrecord000: " in message and "too small" in message
        assert not (tmp_path / "record").exists()

    @pytest.mark.parametrize("wrong", [("--shards", "0"), ("--shards", str(MAX_SHARDS + 1)),
                                       ("--val_fraction", "1"), ("--seed", "-1")])  # fmt: skip
    def test_wrong_arguments(self, folder, tmp_path, wrong):
        arguments = ["mindrecord", "--data_path", str(folder), "--output_path", str(tmp_path / "record")]
        assert wrong[0] in fails(main, [*arguments, *wrong])

    def test_mindspore_is_not_imported_before_it_is_needed(self):
        source = "import sys, src.data.prepare.commands; sys.exit('mindspore' in sys.modules)"
        root = Path(mindrecord_writer.__file__).parents[3]
        assert subprocess.run([sys.executable, "-c", source], cwd=root, check=False).returncode == 0


class TestReading:
    def test_auto_finds_it_and_other_sets_beside_it_are_ambiguous(self, record):
        (record / "samples").mkdir()
        assert isinstance(open_split(record, "train"), MindRecordImages)
        save(record / "train" / "ant" / "x.png", 1)
        assert "--dataset mindrecord or folder" in fails(open_split, record, "train")
        assert len(open_split(record, "train", dataset="mindrecord")) == 13

    @pytest.mark.parametrize("name", ["train.mindrecord001", "train.mindrecord001.db", INDEX_NAME])
    def test_a_missing_file_is_named(self, record, name):
        (record / name).unlink()
        message = fails(open_split, record, "train", dataset="mindrecord")
        assert message.startswith(f"{record / name} cannot be used: it is missing; write it again with ")

    def test_shards_of_another_version_are_refused(self, record):
        path = record / "train.mindrecord000"
        data = path.read_bytes()
        path.write_bytes(data[:9000].replace(b'"version":"3.0"', b'"version":"4.0"') + data[9000:])
        labels = {name: open_mindrecord(record, split).labels for split, name in (("test", "val"),)}
        write_index(record, CLASSES, labels | {"train": np.arange(13) % 3})
        assert "its version is 4.0, not 3.0" in fails(open_mindrecord, record, "train")

    @pytest.mark.parametrize("plan", [(), (lambda *_: resize_box((0, 0, 5, 5), 2, 2, "bilinear"),)])
    def test_a_damaged_image_is_named(self, record, plan):
        images = open_mindrecord(record, "train")
        number = next(k for k in range(13) if images.read_bytes(k).startswith(b"\x89PNG"))
        shard, _, start, length = images.places[number].tolist()
        with (record / f"train.mindrecord00{shard}").open("r+b") as file:
            file.seek(start + length - 40)
            file.write(bytes(40))
        message = fails(images.read, number, *plan)
        assert (
            message.startswith(f"{record / 'train.mindrecord00'}{shard}, image train/")
            and ".png: " in message
        )
