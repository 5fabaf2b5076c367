import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import listing as module
from src.data.listing import class_folders, images_under, list_folder
from src.model_utils.errors import UserError


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def images(tmp_path):
    """10 files of the class `b`, 5 of the class `a`."""
    root = tmp_path / "images"
    for name, count in (("b", 10), ("a", 5)):
        for k in range(count):
            save(root / name / f"{k}.png")
    return root


def listed(images, test_fraction=0.2, seed=0):
    return list_folder(images, test_fraction=test_fraction, seed=seed)


def names(items):
    return sorted(tuple(path.split(os.sep)[-2:]) for path, _ in items)


def fails(images):
    with pytest.raises(UserError) as caught:
        listed(images)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_share_of_each_class_is_held_out(images):
    listing = listed(images)
    assert listing.class_names == ("a", "b")
    assert [sum(label == k for _, label in listing.test) for k in (0, 1)] == [1, 2]
    assert [sum(label == k for _, label in listing.train) for k in (0, 1)] == [4, 8]
    assert all(path.split(os.sep)[-2] == "ab"[label] for path, label in listing.train + listing.test)
    assert len(set(names(listing.train) + names(listing.test))) == 15


def test_the_split_is_a_function_of_the_seed(images):
    assert listed(images) == listed(images)
    assert len({tuple(names(listed(images, seed=seed).test)) for seed in range(5)}) > 1


def test_each_split_has_an_image_of_a_class_where_there_are_two(images):
    save(images / "c" / "0.png")
    save(images / "c" / "1.png")
    save(images / "d" / "0.png")
    for fraction in (0.01, 0.99):
        listing = listed(images, test_fraction=fraction)
        assert {label for _, label in listing.train} == {0, 1, 2, 3}
        assert {label for _, label in listing.test} == {0, 1, 2}


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path, images, name):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / name / "b" / "x.png")
    listing = listed(root)
    assert names(listing.test) == [("b", "x.png")] and listing.test[0][1] == 1
    assert len(listing.train) == 15


def test_a_training_folder_alone_is_split(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    assert len(listed(root).test) == 3 and listed(root).class_names == ("a", "b")


def test_train_can_be_the_name_of_a_class(images):
    save(images / "train" / "0.png")
    assert listed(images).class_names == ("a", "b", "train")


def test_hidden_files_and_folders_are_passed_over(images):
    (images / ".cache").mkdir()
    (images / "a" / ".DS_Store").write_bytes(b"x")
    listing = listed(images)
    assert listing.class_names == ("a", "b") and len(listing.train + listing.test) == 15


def test_wrong_layouts_are_said(tmp_path, images):
    assert "not a folder" in fails(tmp_path / "nowhere")
    assert "0 class folders" in fails(images / "a")
    (images / "two\nlines").mkdir()
    assert "rename" in fails(images)


def test_a_test_class_that_is_not_trained_is_named(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / "test" / "c" / "x.png")
    message = fails(root)
    assert str(root / "test" / "c") in message
