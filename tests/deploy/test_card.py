import dataclasses
import json

import pytest

from src.common.errors import UserError
from src.deploy.card import KEYS, ModelCard, card_path


def test_round_trip(card, tmp_path):
    path = tmp_path / "net.json"
    card.save(path)
    assert ModelCard.load(path) == card


def test_names_beyond_ascii_and_repeated_survive(tmp_path):
    card = ModelCard("m", ["crane", "crane", "Bär", "犬"], 32, [0, 0.5, 1], [1, 2, 3])
    card.save(tmp_path / "c.json")
    assert ModelCard.load(tmp_path / "c.json") == card
    assert card.class_names == ("crane", "crane", "Bär", "犬")


def test_file_says_how_to_prepare_images_in_words(card, tmp_path):
    card.save(tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    assert "NCHW float32" in text and "0..255" in text and "short side" in text and "central square" in text


@pytest.mark.parametrize(
    ("model", "expected"), [("a/model.mindir", "a/model.json"), ("net.v1.mindir", "net.v1.json")]
)
def test_card_path(model, expected):
    assert str(card_path(model)) == expected


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json: no such model card"):
        ModelCard.load(tmp_path / "gone.json")


@pytest.mark.parametrize("key", KEYS)
def test_missing_key_is_named(card, tmp_path, key):
    path = tmp_path / "c.json"
    card.save(path)
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"c\.json: .*'{key}'"):
        ModelCard.load(path)


def test_a_card_of_an_earlier_export_shows_the_whole_resized_side(card, tmp_path):
    path = tmp_path / "c.json"
    dataclasses.replace(card, crop_percentage=0.875).save(path)
    assert ModelCard.load(path).crop_percentage == 0.875
    values = json.loads(path.read_text())
    del values["crop_percentage"]
    path.write_text(json.dumps(values))
    assert ModelCard.load(path) == card and card.crop_percentage == 1.0


def test_a_card_of_pixels_and_several_files(card, tmp_path):
    path = tmp_path / "c.json"
    several = dataclasses.replace(card, input_type="uint8", files={8: "c_b8.mindir", 1: "c_b1.mindir"})
    several.save(path)
    loaded = ModelCard.load(path)
    assert loaded == several and list(loaded.files) == [1, 8]
    assert (loaded.image_shape, loaded.image_dtype) == ((16, 16, 3), "uint8")
    assert (card.image_shape, card.image_dtype) == ((3, 16, 16), "float32")
    assert "NHWC uint8" in json.loads(path.read_text())["input"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"null", b'{"model": "a', b"[" * 100_000],
    ids=["empty", "open", "list", "not text", "null", "cut", "deep"],
)
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.json: damaged model card"):
        ModelCard.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", ""),
        ("model", 3),
        ("class_names", []),
        ("class_names", "ant"),
        ("class_names", ["ant", 3]),
        ("class_names", ["ant", ""]),
        ("image_size", 0),
        ("image_size", 32.0),
        ("image_size", True),
        ("image_size", "32"),
        ("mean", [1, 2]),
        ("mean", [1, 2, "3"]),
        ("mean", [1, 2, float("nan")]),
        ("mean", 5),
        ("std", [1, 2, 0]),
        ("std", [1, 2, -1]),
        ("std", None),
        ("crop_percentage", 0),
        ("crop_percentage", 1.01),
        ("crop_percentage", True),
        ("crop_percentage", "0.875"),
        ("input_type", "float16"),
        ("input_type", None),
    ],
)
def test_bad_value_names_file_and_key(card, tmp_path, key, value):
    path = tmp_path / "c.json"
    card.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=rf"c\.json: .*'{key}'") as caught:
        ModelCard.load(path)
    assert "\n" not in str(caught.value)
