# SPDX-License-Identifier: Apache-2.0
"""An index follows its folders, and refuses what does not belong to it."""

import os
import shutil

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.folders import find_in
from src.retrieval.index import PictureIndex, update
from tests.helpers.indexes import IDENTITY, Counted, build, contents, counts, draw, embed_pixels, same


def test_it_follows_the_folder(photos, tmp_path):
    index = tmp_path / "index"
    assert counts(build(index, photos)) == [7, 7, 0, 0, 0, 0, 0]
    assert [path.name for path in index.iterdir()] == ["index.sqlite"]
    written = (index / "index.sqlite").read_bytes()
    again = Counted()
    assert counts(build(index, photos, embed=again)) == [7, 0, 0, 0, 7, 0, 0]
    assert again.files == [] and (index / "index.sqlite").read_bytes() == written

    draw(photos / "a/0.png", 99)
    os.utime(photos / "a/2.png", ns=(1, 1))  # the same bytes, another time
    (photos / "b/1.png").unlink()
    draw(photos / "c/new.png", 98)
    (photos / "a/4.png").write_bytes(b"no picture")
    some, heard = Counted(), []
    facts = build(index, photos, embed=some, damaged=lambda error: heard.append(str(error)))
    assert counts(facts) == [6, 1, 1, 0, 4, 2, 1]
    assert sorted(some.files) == ["0.png", "4.png", "new.png"]
    assert len(heard) == 1 and str(photos / "a/4.png") in heard[0]
    # The damaged one is not tried again until it changes.
    still = Counted()
    assert counts(build(index, photos, embed=still, damaged=pytest.fail)) == [6, 0, 0, 0, 6, 0, 1]
    assert still.files == []
    draw(photos / "a/4.png", 4)
    assert counts(build(index, photos)) == [7, 1, 0, 0, 6, 0, 0]
    # Whatever happened on the way, the index is the one of a single build.
    build(tmp_path / "fresh", photos)
    assert same(index, tmp_path / "fresh")


def test_other_folders_stay_unless_only(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos / "a")
    assert counts(build(index, photos / "b")) == [7, 3, 0, 0, 4, 0, 0]
    draw(photos / "ab/x.png", 50)  # a folder whose name begins like another's
    build(index, photos / "ab")
    shutil.rmtree(photos / "ab")
    assert counts(build(index, photos / "a")) == [8, 0, 0, 0, 8, 0, 0]
    assert counts(build(index, photos / "a", only=True)) == [4, 0, 0, 0, 4, 4, 0]


@pytest.mark.parametrize("left", [None, 0, 1, 3])
def test_a_folder_that_lost_most_of_its_pictures_keeps_its_entries_unless_prune(photos, tmp_path, left):
    """A drive that is not mounted, a mount point without its drive, and one that lost 6 and 4 of 7."""
    index = tmp_path / "index"
    draw(tmp_path / "other/x.png", 60)
    build(index, photos, tmp_path / "other")
    before = (index / "index.sqlite").read_bytes()
    for file in sorted(photos.rglob("*.png"))[left or 0 :]:
        file.unlink()
    if left is None:
        shutil.rmtree(photos)
    lost = 7 - (left or 0)
    for roots in ([photos], [photos, tmp_path / "other"]):
        with pytest.raises(UserError, match=f"photos: {lost} of the 7 pictures .* are gone.*--prune$"):
            build(index, *roots)
    assert (index / "index.sqlite").read_bytes() == before
    assert counts(build(index, photos, prune=True)) == [8 - lost, 0, 0, 0, 8 - lost, lost, 0]


@pytest.mark.parametrize("deep", [False, True])
def test_an_empty_folder_within_may_be_a_drive_that_is_missing(photos, tmp_path, deep):
    """Old: its pictures were dropped, and embedded again when the drive was back."""
    index, drive = tmp_path / "index", photos / "b"
    if deep:
        (drive / "deep").mkdir()
        for file in [*drive.glob("*.png")]:
            file.rename(drive / "deep" / file.name)
    build(index, photos)
    drive.rename(tmp_path / "drive")
    drive.mkdir()
    with pytest.raises(UserError, match=f"^{drive} is empty, .*--prune$"):
        build(index, photos)
    drive.rmdir()
    (tmp_path / "drive").rename(drive)
    assert counts(build(index, photos)) == [7, 0, 0, 0, 7, 0, 0]
    shutil.rmtree(drive)
    drive.mkdir()
    assert counts(build(index, photos, prune=True)) == [4, 0, 0, 0, 4, 3, 0]


def test_fewer_losses_are_dropped(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos)
    shutil.rmtree(photos / "b")
    assert counts(build(index, photos)) == [4, 0, 0, 0, 4, 3, 0]


@pytest.mark.parametrize("may_be_entered", [True, False])
def test_a_folder_that_cannot_be_read_loses_nothing(photos, tmp_path, monkeypatch, may_be_entered):
    """As a plain user sees another's folder; root would see it all, so the system's answer is made here."""
    index = tmp_path / "index"
    build(index, photos)

    def stat(path, *given, real=os.stat, **named):
        if not may_be_entered and str(path).startswith(str(photos / "b")):
            raise PermissionError
        return real(path, *given, **named)

    listed = {str(photos): find_in(photos / "a").files}
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        facts = update(index, listed, embed=embed_pixels, identity=IDENTITY, reopen={})
    assert counts(facts) == [7, 0, 0, 0, 7, 0, 0]


def test_a_picture_that_became_a_link_to_another_one_is_dropped(photos, tmp_path):
    index = tmp_path / "index"
    shutil.copy(photos / "a/0.png", photos / "z.png")
    build(index, photos)
    (photos / "a/0.png").unlink()
    (photos / "a/0.png").symlink_to(photos / "z.png")  # as programs that look for copies do
    assert counts(build(index, photos)) == [7, 0, 0, 0, 7, 1, 0]
    assert str(photos / "a/0.png") not in contents(index)


@pytest.mark.parametrize("also", ["", "a"])
def test_pictures_that_moved_are_known_by_their_bytes(photos, tmp_path, also):
    index, moved = tmp_path / "index", tmp_path / "moved"
    build(index, photos)
    old = contents(index)
    if also:  # part of it by an earlier name
        build(index, photos / also)
    photos.rename(moved)
    (moved / "a/0.png").rename(moved / "first.png")
    for file in moved.rglob("*.png"):
        os.utime(file, ns=(5, 5))  # as a copy to another drive may leave it
    again = Counted()
    assert counts(build(index, moved, embed=again)) == [7, 0, 0, 7, 0, 0, 0]
    assert again.files == []
    new = contents(index)
    assert str(moved / "first.png") in new and not any(str(photos) in file for file in new)
    assert (new[str(moved / "b/1.png")] == old[str(photos / "b/1.png")]).all()


def test_a_copy_is_embedded_once_and_found_twice(photos, tmp_path):
    index = tmp_path / "index"
    build(index, photos)
    shutil.copy(photos / "a/0.png", photos / "copy.png")
    again = Counted()
    assert counts(build(index, photos, embed=again)) == [8, 1, 0, 0, 7, 0, 0]
    assert again.files == []
    vector = np.float32(contents(index)[str(photos / "a/0.png")])
    ((one, other),) = PictureIndex.open(index).search(vector[None], 2)
    assert [one[0], other[0]] == [str(photos / "a/0.png"), str(photos / "copy.png")]


def test_a_second_name_of_a_file_is_no_second_picture(photos, tmp_path):
    index, linked = tmp_path / "index", tmp_path / "linked"
    (photos / "soft.png").symlink_to(photos / "a/0.png")
    os.link(photos / "a/2.png", photos / "a/hard.png")
    linked.symlink_to(photos)
    assert counts(build(index, photos, linked)) == [7, 7, 0, 0, 0, 0, 0]
    assert set(contents(index)) == {str(file) for file in photos.glob("[ab]/?.png")}
    (tmp_path / "elsewhere").mkdir()
    os.link(photos / "b/1.png", tmp_path / "elsewhere/0.png")
    again = Counted()
    for root in (linked, tmp_path / "elsewhere"):
        assert counts(build(index, root, embed=again)) == [7, 0, 0, 0, 7, 0, 0]
    os.link(photos / "a/4.png", photos / "a/0first.png")  # sorted before the name that the index has
    assert counts(build(index, photos, embed=again)) == [7, 0, 0, 0, 7, 0, 0]
    assert again.files == []


def test_search_finds_in_order_what_is_there(photos, tmp_path):
    index = tmp_path / "index"
    for name in ("twin.png", "z.png"):
        shutil.copy(photos / "a/0.png", photos / name)
    build(index, photos)
    vectors = contents(index)
    query = np.float32(vectors[str(photos / "a/0.png")])
    (photos / "twin.png").unlink()
    opened = PictureIndex.open(index)
    (found,) = opened.search(query[None], 3)
    cosines = {file: np.float32(np.float64(vector) @ np.float64(query)) for file, vector in vectors.items()}
    del cosines[str(photos / "twin.png")]  # it is gone, and takes no place
    expected = sorted(cosines, key=lambda file: -cosines[file])[:3]
    assert [file for file, _ in found] == expected
    assert expected[:2] == [str(photos / "a/0.png"), str(photos / "z.png")]
    assert [similarity for _, similarity in found] == pytest.approx([cosines[file] for file in expected])
    assert opened.missing == {str(photos / "twin.png")}
    answers = opened.search(np.stack([1.001 * query] * 2), 99)  # as a rounded vector can be longer
    assert [len(found) for found in answers] == [8, 8]
    assert answers[0][0][1] == answers[0][1][1] == 1.0


@pytest.mark.parametrize(
    ("name", "other"), [("image_size", 16), ("checkpoint_sha256", "cd34")], ids=["size", "checkpoint"]
)
def test_an_index_of_another_identity_is_refused(photos, tmp_path, name, other):
    index = tmp_path / "index"
    build(index, photos)
    before = (index / "index.sqlite").read_bytes()
    message = f"was built with {name} {IDENTITY[name]}, not {other}; choose another --index, or .* --rebuild"
    with pytest.raises(UserError, match=message):
        build(index, photos, identity={**IDENTITY, name: other})
    assert (index / "index.sqlite").read_bytes() == before
    facts = build(index, photos, identity={**IDENTITY, name: other}, rebuild=True)
    assert counts(facts) == [7, 7, 0, 0, 0, 0, 0]


def test_folders_that_are_no_index_are_left_alone(photos, tmp_path):
    for how in ({}, {"rebuild": True}):
        with pytest.raises(UserError, match=r"holds other files \(0.png\) and no index; choose another"):
            build(photos / "a", photos, **how)
    assert len(list((photos / "a").iterdir())) == 4
    for wrong in (photos, photos / "a/0.png", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no index"):
            PictureIndex.open(wrong)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no picture is there"):
        build(tmp_path / "index", tmp_path / "bare")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        build(tmp_path / "index", tmp_path / "nowhere", prune=True)


def test_what_the_system_could_not_read_is_tried_again(photos, tmp_path):
    index = tmp_path / "index"

    def unplugged(pictures, *, skip):
        for file, read in pictures:
            if file.endswith("5.png"):
                os.rename(file, f"{file}~")
            yield from embed_pixels([(file, read)], skip=skip)

    assert counts(build(index, photos, embed=unplugged)) == [6, 6, 0, 0, 0, 0, 1]
    os.rename(photos / "b/5.png~", photos / "b/5.png")
    assert counts(build(index, photos)) == [7, 1, 0, 0, 6, 0, 0]


def test_names_that_are_no_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "photos")
    draw(tmp_path / "photos/plain.png", 0)
    draw(tmp_path / "photos/other.png", 1)
    try:
        os.rename(tmp_path / "photos/other.png", os.path.join(folder, b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes no such names")
    assert build(tmp_path / "index", tmp_path / "photos")["files"] == 2
    again = Counted()
    assert build(tmp_path / "index", tmp_path / "photos", embed=again)["unchanged"] == 2
    (found,) = PictureIndex.open(tmp_path / "index").search(np.eye(6, dtype=np.float32)[:1], 2)
    assert len(found) == 2
