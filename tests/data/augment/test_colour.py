# SPDX-License-Identifier: Apache-2.0
"""Colour changes against the four operations one by one in float64."""

from itertools import permutations

import numpy as np
import pytest

from src.data.augment.colour import ColourChange, colour_maps, recolour
from tests.helpers.pictures import noise

LUMA = np.array([0.299, 0.587, 0.114])
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def grey(x):
    return (x @ LUMA)[..., None]


def turned(x, turns):
    """The colour plane of YIQ as complex numbers, each turned by an angle."""
    luma = x @ LUMA
    i = x @ [0.5959, -0.2746, -0.3213]
    q = x @ [0.2115, -0.5227, 0.3112]
    colour = (i + 1j * q) * np.exp(-2j * np.pi * turns)
    axes = [LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
    return np.linalg.solve(axes, np.stack([luma, colour.real, colour.imag], -1)[..., None])[..., 0]


OPERATIONS = (
    lambda x, factor: x * factor,
    lambda x, factor: factor * x + (1 - factor) * grey(x).mean(),
    lambda x, factor: factor * x + (1 - factor) * grey(x),
    turned,
)


def one_by_one(image, values, order):
    """The operations in that order, without clipping or rounding between them."""
    x = image.astype(np.float64)
    for k in order:
        x = OPERATIONS[k](x, values[k])
    return x


def applied(image, values, weights=(0, 0, 0)):
    maps = colour_maps(np.array([[*values, *weights]]).T)
    return recolour(image, *(part[0] for part in maps))


@pytest.mark.parametrize("values", [
    (1.3, 1, 1, 0), (1, 1.4, 1, 0), (1, 0.3, 1, 0), (1, 1, 1.5, 0), (1, 1, 1, 0.1), (1, 1, 1, -0.5),
    (0.7, 1.35, 0.6, 0.08), (1.4, 1.4, 1.4, -0.1), (1.2, 0.0, 0.5, 0.3), (0.0, 1.2, 1.2, 0.1),
])  # fmt: skip
def test_the_map_is_the_operations_in_any_order(values):
    image = noise(9, 14)
    changed = applied(image, values)
    assert changed.shape == image.shape and changed.dtype == np.uint8
    for order in permutations(range(4)):
        expected = one_by_one(image, values, order).clip(0, 255)
        assert np.abs(changed - expected).max() < 1.5 and np.abs((changed - expected).mean()) < 0.5


def test_lighting_is_one_colour_for_the_whole_picture_in_grey_levels():
    image, weights = noise(9, 14, low=60, high=190), np.array([0.1, -0.15, 0.2])
    expected = image + 255 * (EIGENVECTORS @ (EIGENVALUES * weights))
    changed = applied(image, (1, 1, 1, 0), weights)
    np.testing.assert_allclose(changed, expected, atol=0.51)
    both = one_by_one(image, (1.2, 0.8, 0.7, 0.1), range(4)) + expected - image
    np.testing.assert_allclose(applied(image, (1.2, 0.8, 0.7, 0.1), weights), both, atol=1.5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (224, 224)])
def test_without_strength_a_picture_stays_as_it_is_to_the_bit(shape):
    image = noise(*shape)
    image[0, 0] = 0, 128, 255
    image.setflags(write=False)
    maps = colour_maps(ColourChange().draw(np.random.default_rng(0), 5))
    for row in range(5):
        np.testing.assert_array_equal(recolour(image, *(part[row] for part in maps)), image)


def test_hand_made_colours():
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    assert applied(red, (1, 1, 0, 0))[0, 0].tolist() == [60] * 3  # without colour: 0.299 of 200
    assert applied(red, (0.5, 1, 1, 0))[0, 0].tolist() == [100, 0, 0]
    assert applied(red, (2, 1, 1, 0))[0, 0].tolist() == [255, 0, 0]
    assert not applied(red, (0, 1, 1, 0)).any()
    assert applied(red, (1, 1, 1, 1 / 3))[0, 0].argmax() == 1  # a third of a turn: green
    assert applied(red, (1, 1, 1, -1 / 3))[0, 0].argmax() == 2
    halves = np.zeros((4, 6, 3), np.uint8)
    halves[:2] = 200
    assert np.unique(applied(halves, (1, 0.5, 1, 0))).tolist() == [50, 150]
    assert np.unique(applied(halves, (1, 0, 1, 0))).tolist() == [100]


def test_a_grey_picture_has_no_hue_and_no_saturation():
    image = np.repeat(noise(9, 14)[..., :1], 3, axis=2)
    for values in ((1, 1, 1.9, 0), (1, 1, 0.2, 0.4), (1, 1, 1, -0.25)):
        np.testing.assert_allclose(applied(image, values), image, atol=1)


def test_a_map_belongs_to_its_column():
    parameters = ColourChange(jitter=(0.4, 0.4, 0.4, 0.1), lighting=0.1).draw(np.random.default_rng(3), 6)
    whole, image = colour_maps(parameters), noise(9, 14, low=60, high=190)
    for row, column in enumerate(parameters.T):
        alone = applied(image, column[:4], column[4:])
        np.testing.assert_array_equal(recolour(image, *(part[row] for part in whole)), alone)


def test_what_is_drawn():
    strengths = (0.4, 1.5, 0.2, 0.1)
    drawn = ColourChange(jitter=strengths, lighting=0.3).draw(np.random.default_rng(0), 20_000)
    assert drawn.shape == (7, 20_000)
    for values, low, high in zip(drawn, (0.6, 0, 0.8, -0.1), (1.4, 2.5, 1.2, 0.1)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert np.histogram(values, 5, (low, high))[0].min() > 3700
    np.testing.assert_allclose(drawn[4:].std(1), 0.3, rtol=0.03)
    assert np.abs(np.corrcoef(drawn) - np.eye(7)).max() < 0.04
