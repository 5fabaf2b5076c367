# SPDX-License-Identifier: Apache-2.0
"""Which images are found, and which label each of them gets."""

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.binary import CIFAR10, read_set
from src.data.preparation import Preparation
from src.deploy.examples import find_examples

CLASSES = ("ant", "bee", "crazy cat")


@pytest.fixture
def folder(tmp_path):
    """Two class folders, one of them deep, with a file name that both have."""
    for name in ("ant/1.png", "ant/2.png", "bee/deep/1.png", "bee/with space.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (1, 2, 3)).save(path)
    return tmp_path / "set"


PREPARATION = Preparation(4, (0, 0, 0), (1, 1, 1))


def find(paths, class_names=CLASSES, **how):
    return find_examples(paths, class_names, **how)[0]


def labels_of(examples, folder):
    return {example.file.removeprefix(f"{folder}/"): example.label for example in examples}


def test_without_labels(folder):
    examples = find([folder, folder / "ant" / "1.png"])
    assert [example.label for example in examples] == [None] * 4
    assert examples[0].file == str(folder / "ant" / "1.png")
    assert (examples[0].read(PREPARATION.plan_square) == (1, 2, 3)).all()


def test_the_order_is_that_of_the_arguments_and_each_file_comes_once(folder):
    """Old behaviour: sorted by path, and a link was another image."""
    (folder / "bee" / "0.png").symlink_to(folder / "ant" / "2.png")
    paths = [folder / "bee" / "deep", folder / "ant" / "2.png", folder]
    files = [example.file.removeprefix(f"{folder}/") for example in find(paths)]
    assert files == ["bee/deep/1.png", "ant/2.png", "ant/1.png", "bee/with space.png"]


def test_what_folders_hold_besides_is_said(folder):
    """Old behaviour: passed over unsaid."""
    for name in ("notes.txt", "a.heic", "b.heic", "bee/x.txt"):
        (folder / name).touch()
    _, listed = find_examples([folder, folder / "ant"], CLASSES)
    found, left_out = listed.in_words()
    assert found.startswith("4 pictures in ") and "2 .heic" in left_out and "2 .txt" in left_out


@pytest.mark.parametrize("labels", ["folders", "auto"])
def test_of_class_folders(folder, labels):
    found = labels_of(find([folder], labels=labels), folder)
    assert found == {"ant/1.png": 0, "ant/2.png": 0, "bee/deep/1.png": 1, "bee/with space.png": 1}


@pytest.mark.parametrize("below", ["crab/3.png", "3.png"])
def test_a_folder_that_is_no_class(folder, below):
    path = folder / below
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(UserError, match=rf"labels: .*{below} in no folder named as a class.*ant, bee"):
        find([folder], labels="folders")
    assert {example.label for example in find([folder], labels="auto")} == {None}


def test_of_a_file(folder, tmp_path):
    lines = tmp_path / "labels.txt"
    lines.write_text(
        f"ant/1.png ant\n\n{folder}/bee/deep/1.png crazy cat\n"
        "bee/with space.png\tbee\n2.png 2\nelse.png ant\n"
    )
    found = labels_of(find([folder], labels=str(lines)), folder)
    assert found == {"ant/1.png": 0, "ant/2.png": 2, "bee/deep/1.png": 2, "bee/with space.png": 1}


def test_the_folder_of_a_class_alone(folder):
    """Old behaviour: "in no folder named as a class of the model"."""
    assert [example.label for example in find([folder / "bee"], labels="auto")] == [None, None]
    (folder / "bee" / "deep").rename(folder / "ant" / "deep")
    assert labels_of(find([folder / "bee", folder / "ant/1.png"], labels="folders"), folder) == {
        "bee/with space.png": 1,
        "ant/1.png": 0,
    }


def test_cifar_files_are_their_test_images(data_path):
    test = read_set(CIFAR10, data_path, "test")
    examples = find([data_path], test.class_names, labels="folders")
    assert [example.label for example in examples] == test.labels.tolist()
    assert examples[3].file == str(data_path / "test_batch.bin#00003")
    how = Preparation(32, (0, 0, 0), (1, 1, 1))
    assert np.array_equal(examples[3].read(how.plan_square), test.read(3))
    assert find([data_path], labels="auto")[0].label is None


def test_nothing(tmp_path):
    with pytest.raises(UserError, match="no image in this folder"):
        find([tmp_path])
    with pytest.raises(UserError, match="no image is named"):
        find([])
