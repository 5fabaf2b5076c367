import json

import numpy as np
import pytest

from src.data.binary import read_set
from src.data.cifar100 import CIFAR100
from tests.helpers.errors import fails

COUNTS = {"train": 9, "test": 4}


@pytest.fixture
def folder(tmp_path, write_cifar100):
    """9 training and 4 test images with the official class names."""
    return write_cifar100(tmp_path / "cifar-100-binary", COUNTS)


def refused(folder, split="train"):
    return fails(read_set, CIFAR100, folder, split)


def test_the_classes_are_a_hundred_in_alphabetical_order():
    names = CIFAR100.official_classes
    assert len(set(names)) == 100 and list(names) == sorted(names)
    assert (names[0], names[48], names[99]) == ("apple", "motorcycle", "worm")


@pytest.mark.parametrize("split", ["train", "test"])
def test_reading_gives_the_fine_labels_and_the_pixels(folder, split):
    data = read_set(CIFAR100, folder.parent, split)
    records = np.frombuffer((folder / f"{split}.bin").read_bytes(), np.uint8).reshape(-1, 3074)
    assert data.images.shape == (COUNTS[split], 3, 32, 32) and data.class_names == CIFAR100.official_classes
    for number, record in enumerate(records.tolist()):
        assert data.labels[number] == record[1]
        assert data.images[number].reshape(-1).tolist() == record[2:]
        row, column, channel = 3, 5, 1
        assert data.read(number)[row, column, channel] == record[2 + 1024 * channel + 32 * row + column]


def test_official_lengths_are_expected_without_a_sizes_file(folder):
    (folder / "sizes.json").unlink()
    message = refused(folder)
    assert "train.bin is too short" in message and "153,700,000 bytes (50,000 records of 3,074)" in message
    assert "30,740,000" in refused(folder, "test")


@pytest.mark.parametrize(("change", "word"), [(-1, "short"), (3074, "long")])
def test_a_file_of_another_length_is_named(folder, change, word):
    path = folder / "test.bin"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    assert f"test.bin is too {word}" in refused(folder, "test")
    assert len(read_set(CIFAR100, folder, "train")) == 9


def test_a_fine_label_beyond_the_classes_is_named_and_a_coarse_one_is_not_looked_at(folder):
    data = bytearray((folder / "train.bin").read_bytes())
    data[2 * 3074] = 255
    (folder / "train.bin").write_bytes(data)
    assert len(read_set(CIFAR100, folder, "train")) == 9
    data[2 * 3074 + 1] = 100
    (folder / "train.bin").write_bytes(data)
    message = refused(folder)
    assert "train.bin, record 2" in message and "label 100" in message and "fine_label_names.txt" in message


def test_missing_files_are_named_with_the_mend(folder):
    (folder / "train.bin").unlink()
    assert "train.bin is missing" in refused(folder)
    (folder / "fine_label_names.txt").unlink()
    assert "fine_label_names.txt" in refused(folder, "test")
    (folder / "test.bin").unlink()
    assert "prepare cifar100" in refused(folder)


def test_a_sizes_file_of_the_other_layout_is_refused(folder):
    (folder / "sizes.json").write_text(json.dumps({"data_batch_1.bin": 9, "test_batch.bin": 4}))
    message = refused(folder)
    assert "data_batch_1.bin" in message and '{"train.bin": 800, "test.bin": 200}' in message


def test_the_python_version_is_recognised(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "meta").write_bytes(b"pickle")
    message = refused(tmp_path)
    assert "Python version of CIFAR-100" in message and "prepare cifar100" in message
