# SPDX-License-Identifier: Apache-2.0
"""From uint8 pictures to the network's input, against numpy in float64."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.pixels import Pixels

pytestmark = pytest.mark.usefixtures("graph_mode")

MEAN, STD = (125.0, 120.0, 110.0), (60.0, 50.0, 40.0)
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 5, 3, 3), np.uint8)


def normalised(pictures):
    return ((pictures.astype(np.float64) - MEAN) / STD).transpose(0, 3, 1, 2)


def test_pictures_are_normalised_and_turned():
    out = Pixels(MEAN, STD)(ms.Tensor(PICTURES)).asnumpy()
    assert out.dtype == np.float32 and out.shape == (4, 3, 5, 3)
    np.testing.assert_allclose(out, normalised(PICTURES), atol=1e-6)


def test_pictures_are_mixed():
    partners, weights = np.array([1, 0, 3, 3], np.int32), np.array([1, 0, 0.25, 0.5], np.float32)
    out = Pixels(MEAN, STD)(*map(ms.Tensor, (PICTURES, partners, weights))).asnumpy()
    plain = normalised(PICTURES)
    for n, (partner, weight) in enumerate(zip(partners, weights)):
        np.testing.assert_allclose(out[n], weight * plain[n] + (1 - weight) * plain[partner], atol=1e-6)


def test_normalised_pictures_are_mixed():
    plain = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    partners, weights = np.array([1, 0], np.int32), np.array([0.25, 0.5], np.float32)
    out = Pixels(MEAN, STD)(*map(ms.Tensor, (plain, partners, weights))).asnumpy()
    np.testing.assert_allclose(out[0], 0.25 * plain[0] + 0.75 * plain[1], atol=1e-6)
    np.testing.assert_allclose(out[1], 0.5 * plain[1] + 0.5 * plain[0], atol=1e-6)


def test_float_images_are_left_alone():
    images = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(Pixels(MEAN, STD)(ms.Tensor(images)).asnumpy(), images)
