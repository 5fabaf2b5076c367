# SPDX-License-Identifier: Apache-2.0
"""Which pictures are found in a folder, and what is left out of it, with the reason."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from src.data import folders as module
from src.data.folders import LeftOut, Reader, class_folders, counted, find_images, find_in, some_of
from tests.helpers.errors import fails
from tests.helpers.folders import save, unreadable


@pytest.fixture
def images(tmp_path):
    """10 files of the class `b`, 5 of the class `a`."""
    root = tmp_path / "images"
    for name, count in (("b", 10), ("a", 5)):
        for k in range(count):
            save(root / name / f"{k}.png")
    return root


class TestFindIn:
    def test_searches_to_any_depth(self, images):
        save(images / "a" / "deep" / "er" / "x.JPEG")
        save(images / "a" / "deep" / ".hidden" / "y.png")
        for name in ("notes.txt", "Thumbs.db", "deep/labels.csv", "png"):
            save(images / "a" / name)
        (images / "a" / "folder.png").mkdir()
        found = find_in(images / "a")
        assert found.files == sorted(found.files) and len(found.files) == 6
        assert str(images / "a" / "deep" / "er" / "x.JPEG") in found.files
        assert found.left_out.counts == {
            ("extension", ".txt"): 1, ("extension", ".csv"): 1, ("extension", ""): 1,
            ("leftover", "Thumbs.db"): 1, ("hidden", ""): 1,
        }  # fmt: skip

    def test_takes_what_pillow_reads_and_counts_the_rest(self, tmp_path):
        """Old: .jp2, .jpe, .ico and .tga were passed over unsaid."""
        for name in ("a.jp2", "b.jpe", "c.ico", "d.tga", "e.HEIC", "f.heic", "g.xml", "h.jpg ", "i.pdf"):
            save(tmp_path / name)
        found = find_in(tmp_path)
        assert {Path(file).name for file in found.files} == {"a.jp2", "b.jpe", "c.ico", "d.tga", "h.jpg "}
        first, second = found.in_words()
        assert first == f"5 pictures in {tmp_path}"
        assert second.startswith("left out: files that are no pictures: 2 .heic, 1 .")
        assert (
            second.endswith(" (convert .heic to JPEG or PNG)") and "1 .xml" in second and "1 .pdf" in second
        )

    def test_looks_into_files_without_an_extension(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "ILSVRC2012_val_00000001", "JPEG")
        Image.new("RGB", (8, 8)).save(tmp_path / "deadbeef", "PNG")
        (tmp_path / "LICENSE").write_text("words")
        found = find_in(tmp_path)
        assert [Path(file).name for file in found.files] == ["ILSVRC2012_val_00000001", "deadbeef"]
        assert "1 without an extension" in found.in_words()[1]

    def test_leaves_out_what_other_programs_left_behind(self, images):
        """Old: pictures and classes of their own."""
        leftovers = ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "a/@eaDir")
        for name in leftovers:
            save(images / name / "000.jpg" / "thumb.jpg")
        found = find_in(images)
        assert len(found.files) == 15 and class_folders(images) == ["a", "b"]
        assert sum(found.left_out.counts.values()) == len(leftovers)
        assert "6 leftovers of other programs (" in found.in_words()[1]
        assert "@eaDir" in found.in_words()[1]

    def test_passes_over_a_folder_that_cannot_be_read(self, images, monkeypatch):
        """Old: the whole command ended."""
        unreadable(monkeypatch, images / "b")
        found = find_in(images)
        assert len(found.files) == 5
        assert found.left_out.unreadable == [f"{images / 'b'} (Permission denied)"]
        assert f"cannot be read: 1 folder ({images / 'b'} (Permission denied))" in found.in_words()[1]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_passes_over_a_folder_of_mode_0(self, images):
        (images / "b").chmod(0)
        try:
            assert len(find_in(images).files) == 5
        finally:
            (images / "b").chmod(0o755)

    def test_refuses_a_folder_that_cannot_be_read_itself(self, tmp_path):
        for call in (find_in, class_folders):
            assert "nowhere (No such file" in fails(call, tmp_path / "nowhere")

    def test_follows_links_and_ends_in_circles(self, tmp_path, images):
        save(tmp_path / "elsewhere" / "x.png")
        (tmp_path / "elsewhere" / "back").symlink_to(images / "a")
        (images / "a" / "linked").symlink_to(tmp_path / "elsewhere")
        (images / "a" / "circle").symlink_to(images / "a")
        (images / "a" / "up").symlink_to(tmp_path)
        (images / "c").symlink_to(tmp_path / "elsewhere")
        (images / "all").symlink_to(images)
        found = find_in(images / "a")
        assert len(found.files) == 6
        assert found.left_out.counts == {("circle", str(images / "a" / name)): 1 for name in ("circle", "up")}
        assert "2 links to a folder that they lie in or beside" in found.in_words()[1]
        assert class_folders(images) == ["a", "b", "c"]

    def test_only_files_are_pictures_whatever_the_name(self, tmp_path, images):
        folder = images / "a"
        os.mkfifo(folder / "pipe.jpg")
        (folder / "to_pipe.jpg").symlink_to(folder / "pipe.jpg")
        (folder / "to_file.jpg").symlink_to(folder / "0.png")
        (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
        (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
        found = find_in(folder)
        added = {Path(file).name for file in found.files} - {f"{k}.png" for k in range(5)}
        assert added == {"to_file.jpg", "gone.jpg", "itself.jpg"}
        assert "2 no plain files" in found.in_words()[1]

    def test_links_that_lead_nowhere_are_named(self, images):
        """Old: "files that are no pictures: 1 without an extension", where a class was on a lost drive."""
        (images / "class").symlink_to("/nowhere/class")
        assert f"1 link ({images / 'class'}) to nowhere" in find_in(images).in_words()[1]

    def test_does_not_depend_on_the_order_of_the_file_system(self, images, monkeypatch):
        expected = find_in(images).files
        real = os.scandir

        class Reversed:
            def __init__(self, path):
                with real(path) as entries:
                    self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

            def __enter__(self):
                return iter(self.entries)

            def __exit__(self, *error):
                pass

        monkeypatch.setattr(module.os, "scandir", Reversed)
        assert find_in(images).files == expected == sorted(expected)

    def test_asks_the_system_once_a_folder(self, images, monkeypatch):
        """Of a million files, none is asked for by itself."""
        asked = Counter()
        for name in ("stat", "lstat", "scandir"):
            real = getattr(os, name)
            monkeypatch.setattr(
                os, name, lambda *a, name=name, real=real, **k: asked.update([name]) or real(*a, **k)
            )
        reader = Reader()
        reader.pictures(images)
        few = dict(asked)
        for k in range(100):
            save(images / "a" / f"more{k}.png")
        asked.clear()
        reader.pictures(images)
        assert asked["scandir"] == 3 and asked == few


class TestFindImages:
    def test_files_and_folders_sorted_without_repeats(self, tmp_path):
        names = ["b.PNG", "a.jpeg", "deep/er/c.Webp", "deep/d.tiff", "notes.txt", ".hidden.png", "odd.xyz"]
        for name in names:
            save(tmp_path / name)
        (tmp_path / "folder.png").mkdir()
        found = find_images([tmp_path, tmp_path / "b.PNG", str(tmp_path / "odd.xyz")])
        expected = ["a.jpeg", "b.PNG", "deep/d.tiff", "deep/er/c.Webp", "odd.xyz"]
        assert found.files == sorted(str(tmp_path / name) for name in expected)
        assert found.left_out.counts["extension", ".txt"] == 1

    def test_missing_path(self, tmp_path):
        assert "nowhere: no such" in fails(find_images, [tmp_path / "nowhere"])
        assert f"relative to {Path.cwd()}" in fails(find_images, ["nowhere"])

    def test_folder_without_images(self, tmp_path):
        save(tmp_path / "photo.heic")
        message = fails(find_images, [tmp_path])
        assert "no image in this folder" in message and "convert .heic to JPEG or PNG" in message

    def test_nothing_named(self):
        assert "no image is named" in fails(find_images, [])


def test_what_was_left_out_is_one_line():
    assert LeftOut().in_words() == "left out: nothing"
    many = LeftOut(Counter({("extension", f".{k:02d}"): 20 - k for k in range(10)}), ["a remark"])
    assert many.in_words() == (
        "left out: files that are no pictures: 20 .00, 19 .01, 18 .02, 17 .03, 16 .04, 65 others; a remark"
    )
    more = LeftOut(Counter({("leftover", "two\nlines"): 1}))
    assert "\n" not in more.in_words()


def test_names_in_a_message():
    assert some_of("abc") == "a, b, c" and some_of("abcdef") == "a, b, c, d, e ..."
    assert counted(["a"], "class") == "1 class (a)" and counted("ab", "class") == "2 classes (a, b)"
