import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.data import folders as module
from src.data.folders import class_folders, images_under, list_folder
from tests.helpers.errors import fails


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


def _name(entry):
    return entry.name


def names(items):
    return sorted(tuple(path.split(os.sep)[-2:]) for path, _ in items)


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


def test_the_order_of_the_file_system_does_not_matter(images, monkeypatch):
    expected = listed(images)
    entries = module._entries
    monkeypatch.setattr(module, "_entries", lambda folder: sorted(entries(folder), key=_name, reverse=True))
    assert listed(images) == expected
    assert [path for path, _ in expected.train] == sorted(path for path, _ in expected.train)


def test_the_split_does_not_depend_on_where_the_folder_lies(tmp_path, images):
    before = names(listed(images).test)
    images.rename(tmp_path / "moved")
    assert names(listed(tmp_path / "moved").test) == before
    (tmp_path / "under").mkdir()
    (tmp_path / "moved").rename(tmp_path / "under" / "train")
    assert names(listed(tmp_path / "under").test) == before


def test_images_that_are_added_leave_the_others_where_they_are(images):
    before = {name for name in names(listed(images).test) if name[0] == "b"}
    for k in range(10, 15):
        save(images / "b" / f"{k}.png")
    save(images / "A" / "0.png")
    after = {name for name in names(listed(images).test) if name[0] == "b"}
    assert len(after) == 3
    assert {name for name in after if int(name[1].split(".")[0]) < 10} <= before  # pushed out, never in


@given(
    st.sets(st.text("abcdé ", min_size=1, max_size=3), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_held_out_is_a_share_of_at_least_one_and_never_all(stems, fraction, seed):
    files = [f"/data/class/{stem}.png" for stem in sorted(stems)]
    held_out = module._held_out(files, Path("/data/class"), fraction, seed)
    assert held_out <= set(files)
    wanted = min(max(round(fraction * len(files)), 1), len(files) - 1)
    assert len(held_out) == wanted and (len(files) == 1 or 0 < wanted < len(files))
    moved = [file.replace("/data", "/elsewhere") for file in reversed(files)]
    assert module._held_out(moved, Path("/elsewhere/class"), fraction, seed) == {
        file.replace("/data", "/elsewhere") for file in held_out
    }


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


def test_val_goes_before_a_test_folder_without_labels(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / "val" / "a" / "x.png")
    save(root / "test" / "images" / "y.png")
    listing = listed(root)
    assert names(listing.test) == [("a", "x.png")]
    assert (listing.train_root, listing.test_root) == (root / "train", root / "val")


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
    (images / "a" / "._0.png").write_bytes(b"x")
    listing = listed(images)
    assert listing.class_names == ("a", "b") and len(listing.train + listing.test) == 15


def test_class_folders_are_searched_to_any_depth_for_images(images):
    save(images / "a" / "deep" / "er" / "x.JPEG")
    save(images / "a" / "deep" / ".hidden" / "y.png")
    for name in ("notes.txt", "Thumbs.db", "deep/labels.csv", "png"):
        save(images / "a" / name)
    (images / "a" / "folder.png").mkdir()
    found = images_under(images / "a")
    assert found == sorted(found) and len(found) == 6
    assert str(images / "a" / "deep" / "er" / "x.JPEG") in found


def test_linked_folders_are_followed_and_a_circle_ends(tmp_path, images):
    save(tmp_path / "elsewhere" / "x.png")
    (images / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "a" / "circle").symlink_to(images / "a")
    (images / "c").symlink_to(tmp_path / "elsewhere")
    assert len(images_under(images / "a")) == 6
    assert listed(images).class_names == ("a", "b", "c")


def test_only_files_are_images_whatever_the_name(tmp_path, images):
    folder = images / "a"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "to_pipe.jpg").symlink_to(folder / "pipe.jpg")
    (folder / "to_file.jpg").symlink_to(folder / "0.png")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    added = {Path(file).name for file in images_under(folder)} - {f"{k}.png" for k in range(5)}
    assert added == {"to_file.jpg", "gone.jpg", "itself.jpg"}


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    for call in (images_under, class_folders):
        with pytest.raises(UserError, match=r"nowhere \(No such file.*permissions"):
            call(tmp_path / "nowhere")


def test_an_empty_class_folder_is_named(tmp_path, images):
    save(images / "c" / "notes.txt")
    message = fails(listed, images)
    assert f"{images / 'c'} holds no image" in message and "remove the folder" in message
    (images / "c" / "notes.txt").unlink()
    assert fails(listed, images) == message
    root = tmp_path / "split"
    root.mkdir()
    (images / "c").rmdir()
    images.rename(root / "train")
    (root / "val" / "a").mkdir(parents=True)
    assert f"{root / 'val' / 'a'} holds no image" in fails(listed, root)


def test_more_classes_than_fit_a_byte_are_listed(tmp_path):
    for k in range(300):
        save(tmp_path / f"{k:03d}" / "x.png")
    listing = listed(tmp_path)
    assert [label for _, label in listing.train] == list(range(300)) and not listing.test


def test_wrong_layouts_are_said(tmp_path, images):
    assert "not a folder" in fails(listed, tmp_path / "nowhere")
    assert "0 class folders" in fails(listed, images / "a")
    for name in ("two\nlines", " padded", "bell\a"):
        (images / name).mkdir()
        assert "rename" in fails(listed, images) and repr(name) in fails(listed, images)
        (images / name).rmdir()


def test_a_test_class_that_is_not_trained_is_named(tmp_path, images):
    root = tmp_path / "split"
    root.mkdir()
    images.rename(root / "train")
    save(root / "test" / "c" / "x.png")
    message = fails(listed, root)
    assert str(root / "test" / "c") in message
