import json

import numpy as np
import pytest

from src.data.binary import CIFAR10, ImageSet, encode_records, find_cifar10, read_cifar10, write_cifar10
from tests.helpers.errors import fails


@pytest.fixture
def folder(tmp_path, make_set):
    """A data set of its own: 7 training and 3 test images of 4 classes."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar10(folder, make_set(7, 4), make_set(3, 4, seed=1))
    return folder


def refused(folder, split="train"):
    return fails(read_cifar10, folder, split)


def test_a_record_is_the_label_and_then_the_planes_red_green_blue():
    image = np.zeros((1, 3, 32, 32), np.uint8)
    image[0, 0, 0, 1], image[0, 1, 2, 0], image[0, 2, 31, 31] = 10, 20, 30
    record = encode_records(image, np.array([7]))
    expected = bytearray(3073)
    expected[0], expected[1 + 1], expected[1 + 1024 + 64], expected[3072] = 7, 10, 20, 30
    assert record.tobytes() == bytes(expected)


def test_reading_gives_back_what_was_written(folder, make_set):
    for split, written in (("train", make_set(7, 4)), ("test", make_set(3, 4, seed=1))):
        read = read_cifar10(folder, split)
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
        encode_records(np.full((1, 3, 32, 32), k, np.uint8), np.array([0])).tofile(
            folder / f"data_batch_{k}.bin"
        )
    (folder / "sizes.json").write_text(json.dumps({**sizes, "test_batch.bin": 3}))
    assert read_cifar10(folder, "train").images[:, 0, 0, 0].tolist() == list(range(1, 12))


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
    assert {path.name for path in tmp_path.iterdir()} == {*CIFAR10.official_sizes, "batches.meta.txt"}
    assert all((tmp_path / name).stat().st_size == 30_730_000 for name in CIFAR10.official_sizes)
    train, test = read_cifar10(tmp_path, "train"), read_cifar10(tmp_path, "test")
    np.testing.assert_array_equal(train.images[:, 2, 31, 31], np.arange(50_000) % 251)
    np.testing.assert_array_equal(test.labels, labels[50_000:])


def test_the_folder_is_found_from_itself_or_its_parent(folder):
    assert find_cifar10(folder) == folder
    assert find_cifar10(str(folder.parent)) == folder


def test_an_absent_data_set_is_said_with_the_mend(tmp_path):
    message = refused(tmp_path)
    assert str(tmp_path) in message and "src.data.prepare" in message
    assert "is not a folder" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("inside", [True, False])
def test_the_python_version_is_recognised(tmp_path, inside):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"pickle")
    message = refused(folder if inside else tmp_path)
    assert "Python version" in message and "cifar-10-batches-bin" in message


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
    assert len(read_cifar10(folder, "train")) == 7


def test_without_sizes_the_official_length_is_expected(folder):
    (folder / "sizes.json").unlink()
    message = refused(folder)
    assert "30,730,000" in message and "21,511" in message and "sizes.json" in message


def test_a_label_beyond_the_classes_is_named_with_its_record(folder):
    path = folder / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[5 * 3073] = 4
    path.write_bytes(data)
    message = refused(folder)
    assert "data_batch_1.bin" in message and "record 5" in message and "label 4" in message


def test_256_classes_are_possible_and_257_are_not(folder):
    meta = folder / "batches.meta.txt"
    meta.write_text("".join(f"{k}\n\n" for k in range(256)))
    assert len(read_cifar10(folder, "test").class_names) == 256
    meta.write_text("".join(f"{k}\n" for k in range(257)))
    assert "257 classes" in refused(folder)


def test_class_names_must_be_there(folder):
    meta = folder / "batches.meta.txt"
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
        '{"data_batch_0.bin": 7, "test_batch.bin": 3}',
    ],
)
def test_a_wrong_sizes_file_is_named(folder, text):
    (folder / "sizes.json").write_text(text)
    message = refused(folder)
    assert "sizes.json" in message and "it must be like" in message


def test_an_unknown_split_is_a_mistake_of_the_caller(folder):
    with pytest.raises(ValueError, match="split"):
        read_cifar10(folder, "val")
