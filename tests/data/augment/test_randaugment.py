# SPDX-License-Identifier: Apache-2.0
"""RandAugment draws as it says, applies the table's operators, and depends on its inputs alone."""

import pickle
from collections import Counter
from types import MappingProxyType

import numpy as np
import pytest

from src.data.augment import randaugment as module
from src.data.augment.operators import OPERATORS, Operator
from src.data.augment.randaugment import RandAugment
from tests.helpers.pictures import noise


@pytest.fixture
def drawn(monkeypatch):
    """The (name, value) of each operator that is applied; they leave the image as it is."""
    seen = []

    def watch(name, operator):
        def function(image, value, rng):
            seen.append((name, value))
            return image

        return Operator(function, operator.low, operator.high)

    watched = {name: watch(name, operator) for name, operator in OPERATORS.items()}
    monkeypatch.setattr(module, "OPERATORS", MappingProxyType(watched))
    return seen


def magnitudes(drawn):
    """What magnitude the values of `drawn` are from, for the operators that have one."""
    return [
        (value - low) / (high - low) * 10
        for name, value in drawn
        for _, low, high in [OPERATORS[name]]
        if high > low
    ]


@pytest.mark.parametrize("magnitude", [0, 7, 20])
def test_without_deviation_every_value_is_that_of_the_magnitude(drawn, magnitude):
    augment = RandAugment(layers=40, magnitude=magnitude, std=0)
    augment(noise(2, 2), np.random.default_rng(0))
    assert len(drawn) == 40 and magnitudes(drawn) == pytest.approx([magnitude] * len(magnitudes(drawn)))
    assert len(magnitudes(drawn)) > 20


def test_the_operators_are_equally_likely_and_independent(drawn):
    """3,200 draws: 200 of each expected, deviation 13.7; pairs of the same name in 1/16 of 1,600 images."""
    augment, rng = RandAugment(layers=2, magnitude=20, std=0.5), np.random.default_rng(0)
    for _ in range(1600):
        augment(noise(1, 1), rng)
    names = [name for name, _ in drawn]
    counts = Counter(names)
    assert set(counts) == set(OPERATORS) and all(140 < count < 260 for count in counts.values())
    repeats = sum(first == second for first, second in zip(names[::2], names[1::2]))
    assert 60 < repeats < 140


def test_the_magnitude_is_drawn_once_an_image(drawn):
    augment, rng, means = RandAugment(layers=5, magnitude=20, std=0.5), np.random.default_rng(0), []
    for _ in range(2000):
        drawn.clear()
        augment(noise(1, 1), rng)
        found = magnitudes(drawn)
        if found:
            assert np.ptp(found) < 1e-9
            means.append(found[0])
    assert abs(np.mean(means) - 20) < 0.06
    assert abs(np.std(means) - 0.5) < 0.04


def test_the_layers_follow_each_other(monkeypatch):
    """Adding one and then doubling, in the order of the draw."""
    table = {
        "add": Operator(lambda image, value, rng: image.point(lambda v: v + 1), 0, 0),
        "double": Operator(lambda image, value, rng: image.point(lambda v: v * 2), 0, 0),
    }
    monkeypatch.setattr(module, "OPERATORS", table)
    augment = RandAugment(layers=2, magnitude=5, std=0)
    image = np.full((1, 1, 3), 10, np.uint8)
    results = {int(augment(image, np.random.default_rng(seed))[0, 0, 0]) for seed in range(40)}
    assert results == {12, 21, 22, 40}


def test_the_result_depends_on_the_image_and_the_generator_alone():
    augment = RandAugment(layers=2, magnitude=20, std=0.5)
    images = [noise(11, 13, seed) for seed in range(30)]
    first = [augment(image, np.random.default_rng([4, i])) for i, image in enumerate(images)]
    np.random.seed(0)
    again = pickle.loads(pickle.dumps(augment))
    for i in reversed(range(30)):
        np.testing.assert_array_equal(again(images[i], np.random.default_rng([4, i])), first[i])
    other = [augment(images[0], np.random.default_rng([5, i])) for i in range(30)]
    assert len({result.tobytes() for result in other}) > 15


def test_without_layers_the_image_comes_back_as_a_copy():
    image = noise(5, 6)
    result = RandAugment(layers=0, magnitude=20, std=0.5)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image) and result.flags.writeable


@pytest.mark.parametrize("magnitude", [0, 10, 20, 30])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 2), (31, 17), (32, 32)])
def test_every_image_keeps_its_shape_and_its_own_pixels(magnitude, size):
    """Noise, one grey, black; read-only, and not contiguous, as the views of a larger array are."""
    augment = RandAugment(layers=3, magnitude=magnitude, std=1.5)
    grey = np.repeat(noise(*size)[..., :1], 3, axis=2)
    view = noise(2 * size[0], 2 * size[1])[::2, ::2]
    images = [noise(*size), grey, np.full((*size, 3), 128, np.uint8), np.zeros((*size, 3), np.uint8), view]
    for image in images:
        before = image.copy()
        image.setflags(write=False)
        for seed in range(20):
            result = augment(image, np.random.default_rng(seed))
            assert result.shape == image.shape and result.dtype == np.uint8
            assert result.flags.c_contiguous
        np.testing.assert_array_equal(image, before)
