# SPDX-License-Identifier: Apache-2.0
"""Retrieval sets as their archives unpack: who asks, what is right, and what is missing or odd."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import decode_resized
from src.data.preparation import Preparation
from src.retrieval.sets import open_retrieval_set
from src.retrieval.task import Picture
from tests.helpers.pictures import smooth

pytestmark = pytest.mark.filterwarnings("error")


def make(folder: Path, *names: str) -> Path:
    """Files that need not be images: listing reads none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def of(pictures):
    return [Path(picture.file).name for picture in pictures]


def answers(found, difficulty=""):
    """{query: (right, junk)} by the names of files; junk is not right."""
    truth, database = found.truths[difficulty], of(found.database)
    return {
        query: (
            [database[k] for k in positives if k not in junk],
            [database[k] for k in junk],
        )
        for query, positives, junk in zip(of(found.queries), truth.positives, truth.junk, strict=True)
    }


HOLIDAYS = ["100000.jpg", "100001.jpg", "100002.jpg", "100100.JPG", "100101.jpg", "149900.jpg", "149901.jpg"]


@pytest.mark.parametrize("inside", ["", "jpg/"])
def test_holidays_to_its_last_group(tmp_path, inside, caplog):
    found = open_retrieval_set(make(tmp_path, *(inside + name for name in HOLIDAYS)))
    assert found.protocol == "holidays" and of(found.database) == HOLIDAYS
    assert answers(found) == {
        "100000.jpg": (["100001.jpg", "100002.jpg"], ["100000.jpg"]),
        "100100.JPG": (["100101.jpg"], ["100100.JPG"]),
        "149900.jpg": (["149901.jpg"], ["149900.jpg"]),
    }
    assert "7 images, where the published holidays has 1491" in caplog.text


def test_holidays_turned(tmp_path):
    make(tmp_path / "set", *HOLIDAYS)
    (tmp_path / "rotations.yaml").write_text('# stand wrong\n100000.jpg: 90\n\n"100001.jpg": -90 # left\n')
    found = open_retrieval_set(tmp_path / "set", rotations=tmp_path / "rotations.yaml")
    assert [p.turns for p in found.database] == [3, 1, 0, 0, 0, 0, 0]
    assert found.queries[0] == found.database[0]


@pytest.mark.parametrize(("text", "message"), [
    ("100000.jpg 90\n", "lines like"), ("100000.jpg: 45\n", "45 given, allowed: multiples of 90"),
    ("100000.jpg: 90.0", "multiples of 90"), ("100000.jpg: true", "multiples of 90"), ("a: [", "is not YAML"),
    ("100003.jpg: 90\n", "100003.jpg is no image of the set"), (None, "cannot be read"),
])  # fmt: skip
def test_rotations_that_are_wrong(tmp_path, text, message):
    make(tmp_path / "set", *HOLIDAYS)
    if text is not None:
        (tmp_path / "rotations.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        open_retrieval_set(tmp_path / "set", rotations=tmp_path / "rotations.yaml")


@pytest.mark.parametrize("inside", ["", "full/"])
def test_ukb_in_fours(tmp_path, inside):
    names = [f"ukbench{number:05d}.jpg" for number in (*range(4), *range(8, 12))]
    found = open_retrieval_set(make(tmp_path, *(inside + name for name in names)))
    assert found.protocol == "ukb" and of(found.queries) == of(found.database) == names
    assert answers(found) == {
        name: (names[:4] if number < 4 else names[4:], []) for number, name in enumerate(names)
    }


@pytest.mark.parametrize("prefix", ["", "copydays_"])
def test_copydays_strong_with_distractors(tmp_path, prefix):
    make(tmp_path / "more", "b.png", "deep/a.jpg", "notes.txt")
    make(tmp_path / "set" / f"{prefix}original", "200000.jpg", "200100.jpg", "212300.jpg")
    make(tmp_path / "set" / f"{prefix}strong", "200001.jpg", "200007.jpg", "212310.jpg")
    found = open_retrieval_set(tmp_path / "set", distractors=tmp_path / "more")
    assert found.protocol == "copydays"
    assert of(found.database) == ["200000.jpg", "200100.jpg", "212300.jpg", "b.png", "a.jpg"]
    assert answers(found) == {
        "200001.jpg": (["200000.jpg"], []),
        "200007.jpg": (["200000.jpg"], []),
        "212310.jpg": (["212300.jpg"], []),
    }


def test_copies_have_their_kind(tmp_path):
    make(tmp_path, "original/200000.jpg", "original/200100.jpg")
    make(tmp_path, "jpeg/200005.jpg", "jpeg/200105.jpg", "crop/200101.jpg", "notes/a.txt")
    found = open_retrieval_set(tmp_path)
    assert (found.protocol, found.kinds) == ("copydays", ("crop", "jpeg", "jpeg"))
    assert answers(found)["200105.jpg"] == (["200100.jpg"], [])
    assert found.without({found.queries[1]}).kinds == ("crop", "jpeg")


def test_groups_with_one_image_alone(tmp_path):
    found = open_retrieval_set(
        make(tmp_path, "a/1.jpg", "a/deep/2.jpg", "a/3.png", "b/4.jpg", "top.jpg", "a/x")
    )
    assert found.protocol == "groups"
    assert answers(found) == {
        "1.jpg": (["3.png", "2.jpg"], ["1.jpg"]),
        "3.png": (["1.jpg", "2.jpg"], ["3.png"]),
        "2.jpg": (["1.jpg", "3.png"], ["2.jpg"]),
        "4.jpg": ([], ["4.jpg"]),
    }


def test_groups_are_named_and_what_is_left_out_too(tmp_path):
    make(tmp_path, "a/1.jpg", "b/2.jpg", "b/3.heic", "c/x.txt", "@eaDir/4.jpg", "__MACOSX/a/5.jpg", "top.jpg")
    first, second = open_retrieval_set(tmp_path).in_words()
    assert first == "groups: 2 queries, 2 pictures to find, of 2 groups (a, b)"
    for part in (
        "1 .heic",
        "2 leftovers",
        "without a picture: 1 group (c)",
        "1 picture in",
        "outside of the groups",
    ):
        assert part in second


@pytest.mark.parametrize(
    ("query", "gallery"),
    [("query", "gallery"), ("Queries", "Database"), ("probe", "index"), ("Probe", "gallery_images"),
     ("market_query", "market_gallery")],
)  # fmt: skip
def test_query_and_gallery(tmp_path, query, gallery):
    """Old: two groups, of those names; mAP 62.5 without a word."""
    found = open_retrieval_set(
        make(tmp_path, f"{query}/a/1.jpg", f"{query}/b/2.jpg", f"{query}/c/3.jpg",
             f"{gallery}/a/4.jpg", f"{gallery}/b/5.jpg", f"{gallery}/a/6.jpg", f"{gallery}/d/7.jpg")
    )  # fmt: skip
    assert found.protocol == "query_gallery"
    assert of(found.database) == ["4.jpg", "6.jpg", "5.jpg", "7.jpg"]
    assert answers(found) == {
        "1.jpg": (["4.jpg", "6.jpg"], []), "2.jpg": (["5.jpg"], []), "3.jpg": ([], [])
    }  # fmt: skip
    assert found.in_words()[0] == (
        "query_gallery: 3 queries, 4 pictures to find, of 3 groups (a, b, d), nothing to find for 1 group (c)"
    )


def test_distractors_that_are_in_the_set_are_there_once(tmp_path):
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    found = open_retrieval_set(tmp_path, distractors=tmp_path / "a")
    assert of(found.database) == ["1.jpg", "2.jpg", "3.jpg"]


GROUND_TRUTH = {
    "imlist": ["all_0", "all_1", "all_2", "all_3"],
    "qimlist": ["ask_0", "ask_1"],
    "gnd": [
        {"bbx": [1.2, 2.0, 9.0, 8.6], "easy": [0], "hard": [2], "junk": [3]},
        {"bbx": np.array([0, 0, 5, 5.0]), "easy": np.array([]), "hard": np.array([1, 3]), "junk": []},
    ],
}


def test_revisited_difficulties(tmp_path):
    make(tmp_path / "jpg", *(f"{name}.jpg" for key in ("imlist", "qimlist") for name in GROUND_TRUTH[key]))
    (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(GROUND_TRUTH))
    found = open_retrieval_set(tmp_path)
    assert found.protocol == "rparis6k" and found.queries[0].box == (1.2, 2.0, 9.0, 8.6)

    def first(difficulty):
        (right, junk), (other_right, other_junk) = answers(found, difficulty).values()
        return right, junk, other_right, other_junk

    zero, one, two, three = of(found.database)
    assert first("easy") == ([zero], [three, two], [], [one, three])
    assert first("medium") == ([zero, two], [three], [one, three], [])
    assert first("hard") == ([two], [three, zero], [one, three], [])


@pytest.mark.parametrize(("names", "protocol", "message"), [
    ([], "auto", "holds no retrieval set"),
    (["notes.txt"], "groups", "holds no folders"),
    (["a/notes.txt"], "auto", "none of its folders holds an image"),
    (["a/1.jpg"], "auto", r"one group alone \(a\)"),
    (["a/1.jpg", "b/notes.txt"], "groups", r"one group alone \(a\)"),
    (["train/a/1.jpg", "val/a/1.jpg", "test/a/1.jpg"], "auto", "holds splits .*give one, as .*val"),
    (["Train/a/1.jpg", "Valid/a/1.jpg", "more/a/1.jpg"], "auto", "holds splits"),
    (["set_train/a/1.jpg", "set_val/a/1.jpg"], "auto", "holds splits"),
    (["query/a/1.jpg", "b/2.jpg"], "auto", "query, and not both of query and gallery"),
    (["query/1.jpg", "gallery/a/1.jpg"], "auto", "query holds no folders"),
    (["query/a/1.jpg", "Queries/a/1.jpg", "gallery/a/1.jpg"], "auto", "which mean the same; keep one"),
    (["a/1.jpg", "b/1.jpg"], "query_gallery", "folders query and gallery are needed"),
    (["100001.jpg"], "holidays", "no query, 100000.jpg"),
    (["100000.jpg", "me.jpg"], "auto", "me.jpg: its name is none"),
    (["100000.jpg", "100000.jpeg"], "auto", "has the number of"),
    (["ukbench00000.jpg", "ukbench00001.jpg", "ukbench00003.jpg"], "auto", "images 0 to 3 are a group"),
    ([f"ukbench{n:05d}.jpg" for n in (0, 1, 2, 4, 5, 6, 7)], "ukb", "images 0 to 3 are a group"),
    ([f"ukbench{n:05d}.jpg" for n in (1, 2, 3, 4)], "ukb", "images 0 to 3 are a group"),
    (["original/200000.jpg", "strong/200101.jpg"], "auto", "lacks its original, 200100.jpg"),
    (["original/200000.jpg"], "copydays", "holds no folder strong or copydays_strong"),
    (["gnd_roxford5k.pkl", "gnd_rparis6k.pkl"], "auto", "choose with --protocol roxford5k or rparis6k"),
    (["a/1.jpg"], "roxford5k", "gnd_roxford5k.pkl is missing"),
    (["a/1.jpg"], "oxford", "'oxford' given, allowed: auto, holidays"),
])  # fmt: skip
def test_what_is_missing_or_odd_is_said(tmp_path, names, protocol, message):
    with pytest.raises(UserError, match=message):
        open_retrieval_set(make(tmp_path, *names), protocol=protocol)


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="none is not a folder"):
        open_retrieval_set(tmp_path / "none")
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(UserError, match="none holds no image"):
        open_retrieval_set(tmp_path, distractors=tmp_path / "none")
    with pytest.raises(UserError, match=r"r\.txt: only with --protocol holidays, not groups"):
        open_retrieval_set(tmp_path, rotations="r.txt")


def test_a_group_called_like_a_holidays_image_is_a_group(tmp_path):
    assert open_retrieval_set(make(tmp_path, "100000/1.jpg", "strong/2.jpg")).protocol == "groups"


def test_without_some_pictures(tmp_path):
    found = open_retrieval_set(make(tmp_path, *HOLIDAYS))
    left = found.without({found.database[0], found.database[2], found.database[4]})
    assert answers(left) == {
        "100100.JPG": ([], ["100100.JPG"]),
        "149900.jpg": (["149901.jpg"], ["149900.jpg"]),
    }
    assert of(left.database) == ["100001.jpg", "100100.JPG", "149900.jpg", "149901.jpg"]


def test_a_picture_is_cut_and_turned(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    turned = Picture(str(file), turns=1).read()
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, np.asarray(Image.fromarray(pixels).rotate(90, expand=True)))
    box = (1.6, -3.0, 5.4, 99.0)
    np.testing.assert_array_equal(Picture(str(file), box=box).read(), pixels[:, 2:5])
    with pytest.raises(UserError, match=r"a\.png: the query's box .* is outside"):
        Picture(str(file), box=(20, 0, 30, 5)).read()


def test_a_picture_is_resized_by_a_plan(tmp_path):
    """Of a whole file no more is decoded than the plan needs, as evaluation does."""
    Image.fromarray(smooth(800, 600)).save(tmp_path / "x.jpg")
    file, plan = str(tmp_path / "x.jpg"), Preparation(64, (0, 0, 0), (1, 1, 1)).plan_whole
    np.testing.assert_array_equal(Picture(file).read(plan), decode_resized(file, plan))
    for how in ({"box": (10, 20, 300, 500)}, {"turns": 1}):
        picture = Picture(file, **how)
        whole = picture.read()
        np.testing.assert_array_equal(picture.read(plan), plan(*whole.shape[:2])(whole))
