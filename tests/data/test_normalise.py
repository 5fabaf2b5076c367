# SPDX-License-Identifier: Apache-2.0
"""The host's normalisation against a device's, byte by byte."""

import mindspore as ms
import numpy as np

from src.data.normalise import Normalise
from src.layers.pixels import Pixels

MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)


def test_every_byte_is_what_the_device_makes_of_it():
    picture = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    on_device = Pixels(MEAN, STD)(ms.Tensor(picture[None])).asnumpy()
    np.testing.assert_array_equal(Normalise(MEAN, STD)(picture), on_device[0])


def test_it_is_the_formula():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (5, 7, 3), np.uint8)
    expected = ((picture.astype(np.float64) - MEAN) / STD).transpose(2, 0, 1)
    planes = np.empty((3, 5, 7), np.float32)
    assert Normalise(MEAN, STD)(picture, planes) is planes
    np.testing.assert_allclose(planes, expected, rtol=1e-5, atol=1e-6)


def test_planes_of_many_pictures_are_those_of_one():
    pictures = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)
    normalise = Normalise(MEAN, STD)
    planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    result = np.empty((8, 3, 5, 7), np.float32)
    assert normalise.planes(planes[:4], result[2:6]) is not None
    np.testing.assert_array_equal(result[2:6], [normalise(picture) for picture in pictures[:4]])
    np.testing.assert_array_equal(normalise.planes(planes), [normalise(picture) for picture in pictures])
