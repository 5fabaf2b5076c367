# SPDX-License-Identifier: Apache-2.0
"""What names of files and folders are taken for."""

import pytest
from PIL import Image

from src.data.names import (
    ClassNames,
    is_general,
    is_leftover,
    looks_like_picture,
    nfc,
    picture_extensions,
    split_of,
    to_convert,
)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAIN training train_images seg_train trainSet train2017 Training-Set data_train",
        ),
        ("val", "val valid validation Val VALID dev holdout held_out Hold-Out evaluation val_images val2017"),
        ("test", "test Test testing test1 test_set TestData seg_test"),
        (None, "trains training_shoes validator contest images all deviant dev_train 0 _ train-station"),
    ],
)
def test_names_of_splits(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("general", "names"),
    [(True, "images img test all_classes JPEGImages unlabelled"), (False, "cat 7 red_images")],
)
def test_general_names(general, names):
    assert [is_general(name) for name in names.split()] == [general] * len(names.split())


def test_what_other_programs_leave_behind():
    names = ["@eaDir", "__MACOSX", "#recycle", "lost+found", "$RECYCLE.BIN", "$Recycle.Bin", "Thumbs.db",
             "System Volume Information", "desktop.ini", "#snapshot", "@Recycle", "Icon\r",
             "RECYCLER", "LOST.DIR", "_gsdata_"]  # fmt: skip
    assert [name for name in names if not is_leftover(name)] == []
    assert not any(map(is_leftover, ("cat", "recycle", "found", "macosx", "Thumbs")))


def test_extensions_are_those_of_pictures_that_pillow_reads(monkeypatch):
    known = picture_extensions()
    wanted = ".jpg .jpeg .jpe .jfif .mpo .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm"
    wanted += " .jp2 .ico .tga .avif"
    others = ".pdf .eps .ps .mpg .mpeg .mp4 .ttf .pcf .txt .svg .h5 .wmf .heic"
    assert {*wanted.split()} - known == set()
    assert known & {*others.split()} == set()
    # A plugin, such as pillow_heif, registers itself.
    monkeypatch.setitem(Image.OPEN, "HEIF", (None, None))
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    assert picture_extensions() - known == {".heic"}


def test_pictures_that_another_program_can_convert():
    assert all(map(to_convert, (".heic", ".heif", ".cr2", ".nef", ".dng", ".svg", ".jxl")))
    assert not any(map(to_convert, (".txt", ".xml", "", ".heicx")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_a_picture_is_known_by_its_beginning(tmp_path, kind):
    path = tmp_path / "picture"
    Image.new("RGB", (8, 8), (9, 80, 120)).save(path, kind)
    assert looks_like_picture(path.read_bytes()[:16])


@pytest.mark.parametrize("head", [b"", b"P1 is text", b"id,class\n0,cat\n", b"\x80\x02}q\x00(X", bytes(16)])
def test_other_files_are_not(head):
    assert not looks_like_picture(head)


def test_class_names_meet_in_nfc_and_in_another_case():
    composed, apart = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    assert nfc(apart) == composed != apart
    classes = ClassNames([apart, "Dog", "CAT", "cat"])
    names = (composed, apart, apart.upper(), "dog", "DOG", "cat", "CAT", "Cat", "bird")
    assert [classes.label(name) for name in names] == [0, 0, 0, 1, 1, 3, 2, None, None]


def test_an_id_of_imagenet_or_the_name_alone_means_the_class():
    classes = ClassNames(("n02012849 crane", "n03126707 crane", "n01440764 tench", "a b"))
    assert [classes.label(name) for name in ("n02012849", "n03126707 crane", "tench", "TENCH", "a b")] == [
        0, 1, 2, 2, 3,
    ]  # fmt: skip
    assert classes.label("crane") is classes.label("a") is None


def test_a_name_of_two_classes_is_none():
    """Old behaviour: the last of them."""
    assert ClassNames(("crane", "ant", "crane")).label("crane") is None
