# SPDX-License-Identifier: Apache-2.0
"""evaluation.json holds the counts as they were, and small pictures as they looked."""

import base64
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from src.common.files import to_json
from src.evaluation.evaluate import Example
from src.reports.kept import SHOWN, facts_of
from tests.reports.conftest import an_evaluation

HOW = {"class_names": "abc", "mean": [10.0] * 3, "std": [2.0] * 3, "of": "epoch 1"}


def _decoded(url):
    head, _, data = url.partition(",")
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return head, pixels[..., ::-1]


def _facts_with(image):
    evaluation = replace(an_evaluation(3), mistakes=[Example(4, image, 0, 1, 0.5, 2.0)])
    return facts_of(evaluation, **HOW, name_of="{}\udcff.png".format)


def test_counts_are_kept_exactly_as_json():
    evaluation = an_evaluation(3)
    facts = json.loads(to_json(facts_of(evaluation, **HOW)))
    totals = evaluation.totals
    for name in ("images", "right", "confusion"):
        np.testing.assert_array_equal(facts[name], getattr(totals, name))
    for name, values in facts["calibration"].items():
        np.testing.assert_array_equal(values, getattr(totals.calibration, name))
    assert facts["class_names"] == ["a", "b", "c"] and facts["of"] == "epoch 1"


def test_few_pixels_are_kept_as_they_were():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 64, 3), np.uint8)
    facts = _facts_with(((pixels.transpose(2, 0, 1) - 10.0) / 2).astype(np.float32))
    (worst,) = facts["worst"]
    head, shown = _decoded(worst["picture"])
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(shown, pixels)
    assert (worst["label"], worst["prediction"], worst["probability"]) == (0, 1, 0.5)
    assert worst["file"] == r"'4\udcff.png'", "a name need not be valid UTF-8"


@pytest.mark.parametrize(
    ("size", "shrunk"), [((300, 200), (128, 85)), ((65, 10), (65, 10)), ((900, 1), (128, 1))]
)
def test_large_pictures_are_shrunk(size, shrunk):
    pixels = np.full((*size, 3), (200, 60, 20), np.uint8)
    head, shown = _decoded(_facts_with(pixels)["worst"][0]["picture"])
    assert head == "data:image/jpeg;base64" and shown.shape[:2] == shrunk
    assert np.abs(shown.astype(int) - (200, 60, 20)).max() < 4


def test_not_all_pictures_are_kept():
    facts = facts_of(an_evaluation(3, pictures=25), **HOW)
    assert len(facts["worst"]) == len(facts["best"]) == SHOWN
