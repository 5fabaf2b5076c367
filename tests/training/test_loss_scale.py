# SPDX-License-Identifier: Apache-2.0
"""The dynamic loss scale follows its rule through any course of overflows, and stays between its bounds."""

import mindspore as ms
import numpy as np
import pytest

from src.training.loss_scale import LossScale


def follow(value, factor, window, overflows):
    """The rule, one update attempt at a time: the scale after each."""
    good, values = 0, []
    for overflow in overflows:
        if overflow:
            value, good = max(value / factor, 1.0), 0
        else:
            good += 1
            if good >= window:
                good = 0
                value = value * factor if value < 2.0**64 else value
        values.append(value)
    return values


def run(scale, overflows):
    values = []
    for overflow in overflows:
        scale(ms.Tensor(bool(overflow)))
        values.append(float(scale.value.asnumpy()))
    return values


@pytest.mark.parametrize(
    ("value", "factor", "window", "share"),
    [(64.0, 2.0, 3, 0.3), (8.0, 2.0, 1, 0.6), (100.0, 1.5, 4, 0.2), (3.0, 2.0, 2, 0.7)],
)
def test_a_random_course_follows_the_rule(graph_mode, value, factor, window, share):
    overflows = np.random.default_rng(int(value)).random(60) < share
    expected = follow(value, factor, window, overflows)
    found = run(LossScale("dynamic", value=value, factor=factor, window=window), overflows)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(set(expected)) > 2


def test_it_halves_at_an_overflow_and_never_falls_below_one(graph_mode):
    scale = LossScale("dynamic", value=6.0, factor=2.0, window=100)
    assert run(scale, [1] * 5) == [3.0, 1.5, 1.0, 1.0, 1.0]


def test_an_overflow_starts_the_window_again(graph_mode):
    scale = LossScale("dynamic", value=4.0, factor=2.0, window=3)
    assert run(scale, [0, 0, 1, 0, 0, 0]) == [4, 4, 2, 2, 2, 4]


def test_growth_ends_far_from_infinity(graph_mode):
    scale = LossScale("dynamic", value=2.0**62, factor=2.0, window=1)
    assert run(scale, [0] * 5) == [2.0**63, 2.0**64, 2.0**64, 2.0**64, 2.0**64]


@pytest.mark.parametrize(
    ("mode", "value", "active", "dynamic"),
    [("none", 1.0, False, False), ("fixed", 512.0, True, False), ("dynamic", 512.0, True, True)],
)
def test_modes(mode, value, active, dynamic):
    scale = LossScale(mode, value=512.0)
    assert (float(scale.value.asnumpy()), scale.active, scale.dynamic) == (value, active, dynamic)
    assert {p.name for p in scale.get_parameters()} == {"loss_scale.value", "loss_scale.good_updates"}
    assert not scale.trainable_params()
