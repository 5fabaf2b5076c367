# SPDX-License-Identifier: Apache-2.0
"""The image operators of automatic augmentation policies, by name, with the range of their strength.

An operator takes an RGB image, its value and a generator, from which geometric ones draw a side and Cutout
a place; it returns a new image of the same size. Any finite value works: beyond its range an operator is
extrapolated, and where it has no further meaning (fewer than 1 bit or more than 8) it stays at the end.

Names and ranges are those of RandAugment in the TPU code of EfficientNet (Cubuk et al., "RandAugment", 2019),
with lengths as shares of the image. What geometry uncovers is grey 128 everywhere, as it is there; some later
versions leave black beside a rotated image.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)


class Operator(NamedTuple):
    """One entry of the table.

    Attributes:
        function: (image, value, rng) -> image; leaves its input as it is.
        low: the value at magnitude 0.
        high: the value at magnitude 10.
    """

    function: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    low: float
    high: float

    def value(self, magnitude: float) -> float:
        """magnitude / 10 * (high - low) + low, also for magnitudes outside 0..10."""
        return magnitude / 10 * (self.high - self.low) + self.low


def _posterize(image: Image.Image, bits: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, min(max(int(bits), 1), 8))


def _solarize_add(image: Image.Image, addition: float, rng: np.random.Generator) -> Image.Image:
    """Adds to the values below 128 alone. Some ports add to all, then invert those from 128 on."""
    table = np.arange(256)
    table[:128] = np.clip(table[:128] + int(addition), 0, 255)
    return image.point(table.tolist() * 3)


def _enhance(kind: type) -> Callable:
    """Blends with the image without that quality: 0 is without, 1 as it is, beyond 1 more of it."""
    return lambda image, factor, rng: kind(image).enhance(factor)


def _rotate(image: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    return image.rotate(either_sign(degrees, rng), fillcolor=GREY)


def affine(
    coefficients: Callable[[float, int, int], tuple[float, ...]],
    resample: Image.Resampling = Image.Resampling.NEAREST,
) -> Callable:
    """A pixel's colour is that of the input at (ax + by + c, dx + ey + f); the value's sign is drawn.

    `coefficients` gives (a, b, c, d, e, f) for a value, an image's width and its height.
    """

    def operator(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
        data = coefficients(either_sign(value, rng), *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, data, resample, fillcolor=GREY)

    return operator


def _cutout(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A grey square, `share` of the width wide, around a pixel anywhere in the image.

    What lies outside the image is cut off. The earlier port moved a square that crossed the left or top
    border inside instead, so that its squares there were larger.
    """
    width, height = image.size
    side = max(int(share * width), 0)
    left, top = (int(rng.integers(length)) - side // 2 for length in (width, height))
    box = (max(left, 0), max(top, 0), min(left + side, width), min(top + side, height))
    result = image.copy()
    result.paste(GREY, box)
    return result


def either_sign(value: float, rng: np.random.Generator) -> float:
    return value if rng.random() < 0.5 else -value


OPERATORS = MappingProxyType(
    {
        "AutoContrast": Operator(lambda image, value, rng: ImageOps.autocontrast(image), 0, 0),
        "Equalize": Operator(lambda image, value, rng: ImageOps.equalize(image), 0, 0),
        "Invert": Operator(lambda image, value, rng: ImageOps.invert(image), 0, 0),
        "Rotate": Operator(_rotate, 0, 30),  # degrees
        "Posterize": Operator(_posterize, 0, 4),  # bits kept
        "Solarize": Operator(lambda image, value, rng: ImageOps.solarize(image, int(value)), 0, 256),
        "SolarizeAdd": Operator(_solarize_add, 0, 110),
        "Color": Operator(_enhance(ImageEnhance.Color), 0.1, 1.9),
        "Contrast": Operator(_enhance(ImageEnhance.Contrast), 0.1, 1.9),
        "Brightness": Operator(_enhance(ImageEnhance.Brightness), 0.1, 1.9),
        "Sharpness": Operator(_enhance(ImageEnhance.Sharpness), 0.1, 1.9),
        "ShearX": Operator(affine(lambda slope, w, h: (1, slope, 0, 0, 1, 0)), 0, 0.3),
        "ShearY": Operator(affine(lambda slope, w, h: (1, 0, 0, slope, 1, 0)), 0, 0.3),
        "TranslateX": Operator(affine(lambda share, w, h: (1, 0, share * w, 0, 1, 0)), 0, 0.45),
        "TranslateY": Operator(affine(lambda share, w, h: (1, 0, 0, 0, 1, share * h)), 0, 0.45),
        "Cutout": Operator(_cutout, 0, 0.35),
    }
)
