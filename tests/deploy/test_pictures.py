"""Which images are found, and which label each of them gets."""

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.binary import read_cifar10
from src.deploy.pictures import find_pictures

CLASSES = ("ant", "bee", "crazy cat")


@pytest.fixture
def folder(tmp_path):
    """Two class folders, one of them deep, with a file name that both have."""
    for name in ("ant/1.png", "ant/2.png", "bee/deep/1.png", "bee/with space.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (1, 2, 3)).save(path)
    return tmp_path / "set"


def labels_of(pictures, folder):
    return {picture.file.removeprefix(f"{folder}/"): picture.label for picture in pictures}


def test_without_labels(folder):
    pictures = find_pictures([folder, folder / "ant" / "1.png"], CLASSES)
    assert [picture.label for picture in pictures] == [None] * 4
    assert pictures[0].file == str(folder / "ant" / "1.png") and pictures[0].read().size == (4, 4)


@pytest.mark.parametrize("labels", ["folders", "auto"])
def test_of_class_folders(folder, labels):
    found = labels_of(find_pictures([folder], CLASSES, labels=labels), folder)
    assert found == {"ant/1.png": 0, "ant/2.png": 0, "bee/deep/1.png": 1, "bee/with space.png": 1}


@pytest.mark.parametrize("below", ["crab/3.png", "3.png"])
def test_a_folder_that_is_no_class(folder, below):
    path = folder / below
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(UserError, match=rf"labels: .*{below} in no folder named as a class.*ant, bee"):
        find_pictures([folder], CLASSES, labels="folders")
    assert {picture.label for picture in find_pictures([folder], CLASSES, labels="auto")} == {None}


def test_of_a_file(folder, tmp_path):
    lines = tmp_path / "labels.txt"
    lines.write_text(
        f"ant/1.png ant\n\n{folder}/bee/deep/1.png crazy cat\n"
        "bee/with space.png\tbee\n2.png 2\nelse.png ant\n"
    )
    found = labels_of(find_pictures([folder], CLASSES, labels=str(lines)), folder)
    assert found == {"ant/1.png": 0, "ant/2.png": 2, "bee/deep/1.png": 2, "bee/with space.png": 1}


def test_cifar_files_are_their_test_images(data_path):
    test = read_cifar10(data_path, "test")
    pictures = find_pictures([data_path], test.class_names, labels="folders")
    assert [picture.label for picture in pictures] == test.labels.tolist()
    assert pictures[3].file == str(data_path / "test_batch.bin#00003")
    assert np.array_equal(np.asarray(pictures[3].read()), test.read(3))
    assert find_pictures([data_path], CLASSES, labels="auto")[0].label is None


def test_nothing(tmp_path):
    with pytest.raises(UserError, match="no image in this folder"):
        find_pictures([tmp_path], CLASSES)
    with pytest.raises(UserError, match="no image is named"):
        find_pictures([], CLASSES)
