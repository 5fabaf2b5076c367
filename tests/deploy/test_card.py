# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from src.common.errors import UserError
from src.data.preparation import Preparation
from src.deploy.card import ModelCard

SHA = "0" * 64


@pytest.fixture
def path(card, tmp_path):
    card.save(tmp_path / "card.json")
    return tmp_path / "card.json"


def changed(path, *, sealed=False, **values):
    """Changes keys, or takes them out where the value is None; without the checksum, unless `sealed`."""
    text = {**json.loads(path.read_text()), **values}
    if not sealed:
        del text["sha256"]
    path.write_text(json.dumps({key: value for key, value in text.items() if value is not None}))


def test_round_trip(card, path, caplog):
    assert ModelCard.load(path) == card and not caplog.records


def test_every_value_survives(tmp_path):
    card = ModelCard(
        model="m",
        class_names=("crane", "crane", "Bär", "犬"),
        preparation=Preparation(32, (0, 0.5, 1), (1, 2, 3), "squash", "bicubic", 0.875),
        input_type="uint8",
        files={8: {"m_b8.mindir": SHA, "m_b8_variables/data_0": SHA}, 1: {"m_b1.mindir": SHA}},
    )
    card.save(tmp_path / "c.json")
    loaded = ModelCard.load(tmp_path / "c.json")
    assert loaded == card and list(loaded.files[8]) == ["m_b8.mindir", "m_b8_variables/data_0"]
    assert (loaded.image_shape, loaded.image_dtype) == ((32, 32, 3), "uint8")


def test_file_says_how_to_prepare_images_in_words(card, path):
    text = path.read_text()
    assert "NCHW float32" in text and "0..255" in text and "short side" in text and "central square" in text
    assert (card.image_shape, card.image_dtype) == ((3, 16, 16), "float32")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json: cannot read this model card: No such file"):
        ModelCard.load(tmp_path / "gone.json")


def test_each_flipped_bit_and_each_cut_is_found(path, caplog):
    """Also one in the name of the checksum: the key is unknown then."""
    content = path.read_bytes()
    damaged = [content[:length] for length in range(len(content))]
    for place in range(len(content)):
        one = bytearray(content)
        one[place] ^= 1 << place % 8
        damaged.append(bytes(one))
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(UserError, match=r"card\.json: ") as caught:
            ModelCard.load(path)
        assert "\n" not in str(caught.value)


def test_a_changed_card_is_refused_and_taken_without_its_checksum(card, path, caplog):
    """The mean 125 as 225: the message says how to keep a change on purpose."""
    text = path.read_text()
    path.write_text(text.replace("125.0", "225.0"))
    with pytest.raises(UserError, match=r'changed since the export; .* remove the line "sha256" from it$'):
        ModelCard.load(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if '"sha256"' not in line))
    assert ModelCard.load(path).preparation.mean == (225, 123, 114)
    assert "changed by hand" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"null", b'{"model": "a', b"[" * 100_000],
    ids=["empty", "open", "list", "binary", "null", "cut", "deep"],
)
def test_a_file_that_is_no_card(tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UserError, match=r"c\.json: damaged model card"):
        ModelCard.load(tmp_path / "c.json")


@pytest.mark.parametrize("key", ["model", "class_names", "preparation"])
def test_a_missing_key_is_named(path, key):
    changed(path, **{key: None})
    with pytest.raises(UserError, match=rf"card\.json: model card: {key}: Field required"):
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
        ("input_type", "float16"),
        ("files", {"-1": {"a.mindir": SHA}}),
        ("files", {"x": {"a.mindir": SHA}}),
        ("files", {"1": {"../a.mindir": SHA}}),
        ("files", {"1": {"/a.mindir": SHA}}),
        ("files", {"1": {"a.mindir": 3}}),
        ("files", ["a.mindir"]),
        ("preparation", 3),
        ("image_size", 0),
        ("image_size", 32.5),
        ("image_size", True),
        ("image_size", "32"),
        ("mean", [1, 2]),
        ("mean", [1, 2, "3"]),
        ("mean", [1, 2, float("nan")]),
        ("mean", 5),
        ("std", [1, 2, 0]),
        ("std", [1, 2, -1]),
        ("std", None),
        ("crop", "left"),
        ("interpolation", "lanczos"),
        ("crop_percentage", 0),
        ("crop_percentage", 1.01),
        ("crop_percentage", True),
        ("crop_percentage", "0.875"),
        ("spelt_wrong", 1),
    ],
)
def test_a_bad_value_names_file_and_key(path, key, value):
    how = json.loads(path.read_text())["preparation"]
    changed(path, **({"preparation": how | {key: value}} if key in how else {key: value}))
    with pytest.raises(UserError, match=rf"card\.json: .*{key}") as caught:
        ModelCard.load(path)
    assert "\n" not in str(caught.value)
