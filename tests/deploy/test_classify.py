# SPDX-License-Identifier: Apache-2.0
"""Classifying pictures: the answers, what is skipped, what is counted, and what is timed."""

import json
import math
from argparse import Namespace
from functools import partial

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data.decode import decode, decode_resized
from src.deploy.classify import classify
from src.deploy.door import classify_from_flags
from src.deploy.examples import Example
from src.deploy.mindir import network_predictor
from src.deploy.predict import Predictor


def as_pictures(paths, labels=None):
    labels = labels or [None] * len(paths)
    return [
        Example(str(path), partial(decode_resized, path), "", label)
        for path, label in zip(paths, labels, strict=True)
    ]


@pytest.fixture(scope="module")
def predictor(make_network, card):
    return network_predictor(make_network(), card, batch_size=3)


@pytest.fixture
def paths(tmp_path):
    """Seven files of different sizes and kinds."""
    rng = np.random.default_rng(5)
    made = []
    for i, (width, height) in enumerate([(16, 16), (40, 20), (9, 30), (64, 64), (1, 5), (200, 17), (32, 32)]):
        made.append(tmp_path / f"picture{i}.{'jpg' if i % 2 else 'png'}")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(made[-1])
    return made


def test_equals_the_plain_way_for_batches_that_do_not_divide(predictor, make_network, card, paths):
    found = classify(predictor, as_pictures(paths), top=2)
    assert found.skipped == [] and [result["file"] for result in found.results] == [str(p) for p in paths]
    network = make_network()
    network.set_train(False)
    for path, result in zip(paths, found.results, strict=True):
        image = card.preparation.normalise(card.preparation.square(decode(path)))[None]
        logits = network(ms.Tensor(image)).asnumpy()[0].astype(np.float64).tolist()
        total = sum(math.exp(value) for value in logits)
        expected = sorted((math.exp(v) / total, n) for v, n in zip(logits, card.class_names, strict=True))
        names = [found["class"] for found in result["predictions"]]
        assert names == [name for _, name in expected[:1:-1]]
        values = [found["probability"] for found in result["predictions"]]
        assert values == pytest.approx([value for value, _ in expected[:1:-1]], rel=1e-4)


def test_probabilities_sum_to_1_and_top_is_at_most_the_classes(predictor, paths):
    for result in classify(predictor, as_pictures(paths)).results:
        values = [found["probability"] for found in result["predictions"]]
        assert len(values) == 4 and values == sorted(values, reverse=True)
        assert math.isclose(sum(values), 1, rel_tol=1e-12)
        assert "label" not in result


def test_huge_logits_do_not_overflow(card, paths):
    predictor = Predictor({2: lambda batch: np.tile(np.float32([1e4, -1e4, 0, 1e4]), (2, 1))}, card=card)
    found = classify(predictor, as_pictures(paths[:1]), top=3)
    assert found.results[0]["predictions"] == [
        {"class": "ant", "probability": 0.5},
        {"class": "dog", "probability": 0.5},
        {"class": "cat", "probability": 0.0},
    ]


def test_unreadable_files_are_skipped_with_their_reason(predictor, paths, tmp_path):
    bad = {"empty.png": b"", "text.jpg": b"hello", "cut.png": paths[0].read_bytes()[:200]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    cut, empty, text = (tmp_path / name for name in sorted(bad))
    found = classify(predictor, as_pictures([empty, *paths[:4], cut, *paths[4:], text]))
    assert [result["file"] for result in found.results] == [str(path) for path in paths]
    assert [file["file"] for file in found.skipped] == [str(path) for path in (empty, cut, text)]
    assert found.skipped[0]["reason"] == "the file is empty"
    assert found.skipped[1]["reason"].startswith("cannot be decoded: ")
    assert found.skipped[2]["reason"] == "not an image in a known format"
    assert [size for size, _ in predictor.calls] == [3, 3, 3]  # the batches are full but for the last


def test_nothing_readable(predictor, tmp_path):
    found = classify(predictor, as_pictures([tmp_path / "gone.png"], [1]))
    assert found.results == [] and len(found.skipped) == 1 and found.accuracy is None
    assert found.performance["images"] == 0 and found.performance["latency"] == []


def test_only_a_batch_is_read_ahead(card, paths):
    """The model is called as soon as a batch is full, while the next one is read."""
    asked = []

    def listed():
        for picture in as_pictures(paths):
            asked.append(picture)
            yield picture

    seen = []

    def run(batch):
        seen.append(len(asked))
        return np.zeros((2, 4), np.float32)

    classify(Predictor({2: run}, card=card), listed())
    assert seen == [0, 4, 6, 7, 7]  # the first warms up


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answer_that_is_not_a_number(card, paths, value):
    predictor = Predictor({1: lambda batch: np.full((1, 4), value)}, card=card)
    with pytest.raises(UserError, match=r"picture0\.png: small answers with NaN"):
        classify(predictor, as_pictures(paths))


@pytest.mark.parametrize(("name", "value"), [("top", 0), ("workers", -1)])
def test_impossible_numbers_are_named(predictor, paths, name, value):
    with pytest.raises(UserError, match=f"{name}: {value} "):
        classify(predictor, as_pictures(paths), **{name: value})


def test_the_door_has_as_many_threads_as_it_is_told(predictor, paths, capsys):
    flags = {"images": [str(paths[0])], "labels": None, "top": 1, "json": True, "summary": False}
    classify_from_flags(predictor, Namespace(**flags, output=None, workers=3, max_image_pixels=None))
    assert json.loads(capsys.readouterr().out)["performance"]["preparation"]["threads"] == 3


def seven_classes(batch):
    """Logits of seven classes that fall from the first to the last."""
    return np.tile(-np.arange(7, dtype=np.float32), (len(batch), 1))


def test_accuracy_counts_what_could_be_read(paths, tmp_path):
    card = Predictor({2: seven_classes}, card=_card_of(7)).card
    (tmp_path / "bad.png").write_bytes(b"no image")
    pictures = as_pictures([*paths, tmp_path / "bad.png"], [0, 0, 1, 4, 5, 6, 0, 0])
    found = classify(Predictor({2: seven_classes}, card=card), pictures)
    assert found.accuracy == {
        "count": 7,
        "top1": pytest.approx(100 * 3 / 7),
        "top5": pytest.approx(100 * 5 / 7),
        "top1_correct": 3,
        "top5_correct": 5,
    }
    assert [result["label"] for result in found.results] == ["c0", "c0", "c1", "c4", "c5", "c6", "c0"]


def test_top5_of_few_classes_is_left_out(predictor, paths):
    found = classify(predictor, as_pictures(paths, [0] * 7))
    assert found.accuracy.keys() == {"count", "top1", "top1_correct"}


def _card_of(classes):
    from src.data.preparation import Preparation
    from src.deploy.card import ModelCard

    names = tuple(f"c{k}" for k in range(classes))
    return ModelCard(model="net", class_names=names, preparation=Preparation(16, (0, 0, 0), (1, 1, 1)))


def test_what_is_timed(card, paths, monkeypatch):
    """A clock that each reading moves on by a second."""
    clock = iter(range(1000))
    monkeypatch.setattr("src.deploy.predict.time.perf_counter", lambda: next(clock))
    predictor = Predictor({1: Counted(), 2: Counted()}, card=card, backend="lite", device="Ascend")
    p = classify(predictor, as_pictures(paths), workers=1).performance
    assert (p["backend"], p["device"], p["input_type"], p["images"]) == ("lite", "Ascend", "float32", 7)
    assert [(one["batch_size"], one["calls"]) for one in p["latency"]] == [(1, 1), (2, 3)]
    for one in p["latency"]:
        assert 1000 <= one["median"] <= one["p90"] <= one["p99"]
    assert p["model"]["images_per_second"] == 7 / p["model"]["seconds"] and p["model"]["seconds"] >= 4
    assert p["images_per_second"] == 7 / p["seconds"] and p["seconds"] > p["model"]["seconds"]
    assert p["preparation"]["threads"] == 1
    assert p["preparation"]["milliseconds_per_image"] == 1000 * p["preparation"]["seconds"] / 7


class Counted:
    def __call__(self, batch):
        return np.zeros((len(batch), 4), np.float32)
