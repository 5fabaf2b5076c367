# SPDX-License-Identifier: Apache-2.0
"""The layouts of CIFAR-10 and CIFAR-100: read as written, and every damage is said."""

import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from src.data.binary import (
    CIFAR10,
    CIFAR100,
    ImageSet,
    OfficialFile,
    find_set,
    read_set,
    write_cifar10,
)
from tests.helpers.errors import fails

LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


@pytest.fixture
def folder(tmp_path, make_set):
    """A data set of its own: 7 training and 3 test images of 4 classes."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar10(folder, make_set(7, 4), make_set(3, 4, seed=1))
    return folder


@pytest.fixture
def hundred(tmp_path, write_cifar100):
    """9 training and 4 test images with the class names of CIFAR-100."""
    return write_cifar100(tmp_path / "cifar-100-binary", {"train": 9, "test": 4})


def plain(folder):
    """A sizes.json as people write it: the counts alone."""
    path = folder / "sizes.json"
    notes = json.loads(path.read_text())
    path.write_text(json.dumps({name: note["records"] for name, note in notes.items() if "records" in note}))
    return folder


def refused(folder, split="train", layout=CIFAR10):
    return fails(read_set, layout, folder, split)


def test_a_record_is_the_label_and_then_the_planes_red_green_blue(tmp_path):
    image = np.zeros((1, 3, 32, 32), np.uint8)
    image[0, 0, 0, 1], image[0, 1, 2, 0], image[0, 2, 31, 31] = 10, 20, 30
    one = ImageSet(image, np.array([7]), tuple("abcdefgh"))
    write_cifar10(tmp_path, one, one)
    expected = bytearray(3073)
    expected[0], expected[1 + 1], expected[1 + 1024 + 64], expected[3072] = 7, 10, 20, 30
    assert (tmp_path / "data_batch_1.bin").read_bytes() == bytes(expected)


def test_reading_gives_back_what_was_written(folder, make_set):
    for split, written in (("train", make_set(7, 4)), ("test", make_set(3, 4, seed=1))):
        read = read_set(CIFAR10, folder, split)
        assert read.images.dtype == np.uint8 and read.labels.dtype == np.int32
        np.testing.assert_array_equal(read.images, written.images)
        np.testing.assert_array_equal(read.labels, written.labels)
        assert read.class_names == ("class 0", "class 1", "class 2", "class 3")
        assert len(read) == len(written)


def test_an_image_is_read_with_its_channels_last(make_set):
    images = make_set(3)
    pixels = images.read(1)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel], images.images[1, channel])
    pixels[:] = 0  # the caller's own
    np.testing.assert_array_equal(images.images, make_set(3).images)


@pytest.mark.parametrize("indices", [[4, 0, 4], np.array([2]), []])
def test_some_images_are_taken_in_the_order_asked_for(make_set, indices):
    images = make_set(5)
    taken = images.take(indices)
    assert isinstance(taken, ImageSet) and taken.class_names == images.class_names
    assert len(taken) == len(indices)
    assert taken.labels.tolist() == [images.labels[k] for k in indices]
    for row, index in enumerate(indices):
        np.testing.assert_array_equal(taken.read(row), images.read(index))


def test_files_are_read_in_the_order_of_their_numbers(folder):
    sizes = {f"data_batch_{k}.bin": 1 for k in range(1, 12)}
    for k in range(1, 12):
        (folder / f"data_batch_{k}.bin").write_bytes(bytes([0]) + bytes([k]) * 3072)
    (folder / "sizes.json").write_text(json.dumps({**sizes, "test_batch.bin": 3}))
    assert read_set(CIFAR10, folder, "train").images[:, 0, 0, 0].tolist() == list(range(1, 12))


def test_official_counts_need_no_sizes_file(tmp_path):
    labels = np.arange(60_000, dtype=np.int32) % 10
    images = np.broadcast_to(
        (np.arange(60_000) % 251).astype(np.uint8)[:, None, None, None], (60_000, 3, 32, 32)
    )
    names = tuple("abcdefghij")
    write_cifar10(
        tmp_path,
        ImageSet(images[:50_000], labels[:50_000], names),
        ImageSet(images[50_000:], labels[50_000:], names),
    )
    (tmp_path / "sizes.json").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {*CIFAR10.files, "batches.meta.txt"}
    assert all((tmp_path / name).stat().st_size == 30_730_000 for name in CIFAR10.files)
    train, test = read_set(CIFAR10, tmp_path, "train"), read_set(CIFAR10, tmp_path, "test")
    np.testing.assert_array_equal(train.images[:, 2, 31, 31], np.arange(50_000) % 251)
    np.testing.assert_array_equal(test.labels, labels[50_000:])


def test_the_folder_is_found_from_itself_or_its_parent(folder):
    assert find_set(CIFAR10, folder) == find_set(CIFAR10, folder.parent) == folder


def test_an_absent_data_set_is_said_with_the_mend(tmp_path):
    message = refused(tmp_path)
    assert str(tmp_path) in message and "src.data.prepare" in message
    assert "is not a folder" in refused(tmp_path / "nowhere")


@pytest.fixture
def python_version(tmp_path, make_set):
    """make(name) -> a layout with the MD5s of small files of a version for Python, which is in tmp_path."""

    def make(name):
        layout, files = LAYOUTS[name], {}
        folder = tmp_path / layout.python_folder_name
        folder.mkdir()
        for seed, file in enumerate(layout.files):
            part = make_set(4, len(layout.classes), seed)
            key = "labels" if name == "cifar10" else "fine_labels"
            data = pickle.dumps({key: part.labels.tolist(), "data": part.images.reshape(4, -1)}, protocol=2)
            (folder / file.removesuffix(".bin")).write_bytes(data)
            files[file] = OfficialFile(4, hashlib.md5(data).hexdigest())
        return replace(layout, files=files)

    return make


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_version_for_python_is_read(tmp_path, make_set, python_version, name):
    layout = python_version(name)
    for data_path in (tmp_path, tmp_path / layout.python_folder_name):
        for split, seeds in (("train", range(len(layout.files) - 1)), ("test", [len(layout.files) - 1])):
            parts = [make_set(4, len(layout.classes), seed) for seed in seeds]
            read = read_set(layout, data_path, split)
            assert read.class_names == layout.classes and read.labels.dtype == np.int32
            np.testing.assert_array_equal(read.images, np.concatenate([part.images for part in parts]))
            np.testing.assert_array_equal(read.labels, np.concatenate([part.labels for part in parts]))


def test_a_pickle_that_is_not_the_published_one_is_never_unpickled(tmp_path, python_version):
    layout = python_version("cifar10")

    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(Trap()))
    assert "data_batch_2 is damaged or was changed: its MD5 is" in refused(tmp_path, layout=layout)
    assert not (tmp_path / "sprung").exists()
    assert len(read_set(layout, tmp_path, "test")) == 4


def test_a_missing_file_is_named_with_its_length(folder):
    (folder / "data_batch_1.bin").unlink()
    message = refused(folder)
    assert "data_batch_1.bin" in message and "missing" in message and "21,511" in message


@pytest.mark.parametrize(("change", "word"), [(-1, "short"), (1, "long"), (-3073, "short"), (3073, "long")])
def test_a_short_or_long_file_is_named_with_both_lengths(folder, change, word):
    path = folder / "test_batch.bin"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    message = refused(folder, "test")
    assert "test_batch.bin" in message and word in message
    assert "9,219" in message and f"{9219 + change:,}" in message
    assert len(read_set(CIFAR10, folder, "train")) == 7


def test_without_sizes_the_official_length_is_expected(folder):
    (folder / "sizes.json").unlink()
    message = refused(folder)
    assert "30,730,000" in message and "21,511" in message and "sizes.json" in message


def test_a_label_beyond_the_classes_is_named_with_its_record(folder):
    path = plain(folder) / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[5 * 3073] = 4
    path.write_bytes(data)
    message = refused(folder)
    assert "data_batch_1.bin" in message and "record 5" in message and "label 4" in message


def test_256_classes_are_possible_and_257_are_not(folder):
    meta = plain(folder) / "batches.meta.txt"
    meta.write_text("".join(f"{k}\n\n" for k in range(256)))
    assert len(read_set(CIFAR10, folder, "test").class_names) == 256
    meta.write_text("".join(f"{k}\n" for k in range(257)))
    assert "257 classes" in refused(folder)


def test_class_names_must_be_there(folder):
    meta = plain(folder) / "batches.meta.txt"
    meta.write_text("\n \n")
    assert "0 classes" in refused(folder)
    meta.write_bytes(b"\xff\xfe\xfd")
    assert "UTF-8" in refused(folder)
    meta.unlink()
    assert "batches.meta.txt" in refused(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        "{}",
        '{"data_batch_1.bin": 7}',
        '{"test_batch.bin": 3}',
        '{"data_batch_1.bin": 0, "test_batch.bin": 3}',
        '{"data_batch_1.bin": true, "test_batch.bin": 3}',
        '{"data_batch_1.bin": 7.0, "test_batch.bin": 3}',
        '{"../data_batch_1.bin": 7, "test_batch.bin": 3}',
        '{"data_batch_1.bin": {"records": 7, "sha1": "0"}, "test_batch.bin": 3}',
        '{"data_batch_1.bin": {"records": 7, "sha256": "0"}, "test_batch.bin": 3}',
        '{"data_batch_1.bin": {"sha256": "0"}, "test_batch.bin": 3}',
        '{"data_batch_1.bin": 7, "test_batch.bin": 3, "batches.meta.txt": 1}',
    ],
)
def test_a_wrong_sizes_file_is_named(folder, text):
    (folder / "sizes.json").write_text(text)
    message = refused(folder)
    assert "sizes.json" in message and "it must be like" in message


def test_an_unknown_split_is_a_mistake_of_the_caller(folder):
    with pytest.raises(ValueError, match="split"):
        read_set(CIFAR10, folder, "val")


class TestCifar100:
    def test_the_classes_are_a_hundred_in_alphabetical_order(self):
        names = CIFAR100.classes
        assert len(set(names)) == 100 and list(names) == sorted(names)
        assert (names[0], names[48], names[99]) == ("apple", "motorcycle", "worm")

    @pytest.mark.parametrize(("split", "count"), [("train", 9), ("test", 4)])
    def test_reading_gives_the_fine_labels_and_the_pixels(self, hundred, split, count):
        data = read_set(CIFAR100, hundred.parent, split)
        records = np.frombuffer((hundred / f"{split}.bin").read_bytes(), np.uint8).reshape(-1, 3074)
        assert data.images.shape == (count, 3, 32, 32) and data.class_names == CIFAR100.classes
        np.testing.assert_array_equal(data.labels, records[:, 1])
        np.testing.assert_array_equal(data.images.reshape(count, -1), records[:, 2:])

    def test_official_lengths_are_expected_without_a_sizes_file(self, hundred):
        (hundred / "sizes.json").unlink()
        message = refused(hundred, layout=CIFAR100)
        assert (
            "train.bin is too short" in message and "153,700,000 bytes (50,000 records of 3,074)" in message
        )
        assert "30,740,000" in refused(hundred, "test", CIFAR100)

    def test_a_coarse_label_is_not_looked_at(self, hundred):
        data = bytearray((hundred / "train.bin").read_bytes())
        data[2 * 3074] = 255
        (hundred / "train.bin").write_bytes(data)
        assert len(read_set(CIFAR100, hundred, "train")) == 9
        data[2 * 3074 + 1] = 100
        (hundred / "train.bin").write_bytes(data)
        message = refused(hundred, layout=CIFAR100)
        assert "train.bin, record 2" in message and "label 100" in message and "fine_label_names" in message

    def test_a_sizes_file_of_the_other_layout_is_refused(self, hundred):
        (hundred / "sizes.json").write_text(json.dumps({"data_batch_1.bin": 9, "test_batch.bin": 4}))
        assert "must name test.bin" in refused(hundred, layout=CIFAR100)
