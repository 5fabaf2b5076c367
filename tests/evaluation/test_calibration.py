# SPDX-License-Identifier: Apache-2.0
"""Calibration adds up as the images would one by one."""

import numpy as np
import pytest

from src.evaluation.calibration import BINS, Calibration
from src.evaluation.metrics import Totals


def _sample(images=500, seed=0):
    rng = np.random.default_rng(seed)
    probability = np.concatenate([rng.uniform(size=images), [0.0, 1.0, 1 / BINS, 2 / BINS]])
    return probability, rng.uniform(size=len(probability)) < probability**2


def test_the_error_is_that_of_images_one_by_one():
    probability, right = _sample()
    made = Calibration()
    for part in np.split(np.arange(len(probability)), [7, 7, 300]):
        made.update(probability[part], right[part])
    error, bins = 0.0, []
    for k in range(BINS):
        inside = [i for i, p in enumerate(probability) if min(int(p * BINS), BINS - 1) == k]
        if inside:
            share, mean = np.mean(right[inside]), np.mean(probability[inside])
            error += 100 * len(inside) / len(right) * abs(share - mean)
            bins.append((100 * mean, 100 * share, len(inside)))
    assert made.error == pytest.approx(error) and error > 5
    np.testing.assert_allclose(list(made.bins()), bins)


def test_without_images_there_is_no_error():
    made = Calibration()
    made.update(np.zeros(0), np.zeros(0, bool))
    assert made.error is None and list(made.bins()) == []


def test_sure_and_right_is_perfect_and_sure_and_wrong_is_not():
    for right, error in ((True, 0.0), (False, 100.0)):
        made = Calibration()
        made.update(np.ones(3), np.full(3, right))
        assert made.error == error and list(made.bins()) == [(100.0, 100.0 * right, 3)]


def test_ranks_add_up_and_an_image_without_a_prediction_is_in_none():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    logits[5] = np.nan

    def totals(part):
        made = Totals(4)
        made.update(logits[part], labels[part])
        return made

    ranks = [totals(slice(rank, None, 3)) for rank in range(3)]
    added = (sum(parts) for parts in zip(*(rank.vectors() for rank in ranks), strict=True))
    whole, of_ranks = totals(slice(None)).calibration, Totals.from_vectors(4, *added).calibration
    np.testing.assert_array_equal(whole.images, of_ranks.images)
    np.testing.assert_array_equal(whole.right, of_ranks.right)
    np.testing.assert_allclose(whole.probability, of_ranks.probability, rtol=1e-13)
    known = np.delete(np.arange(60), 5)
    assert whole.images.sum() == 59
    assert whole.right.sum() == (logits[known].argmax(axis=1) == labels[known]).sum()
