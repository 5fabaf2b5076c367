# SPDX-License-Identifier: Apache-2.0
"""Colour jitter and lighting noise, as one affine map of a picture's colours.

Brightness, contrast, saturation and hue are linear in YIQ: brightness scales all of it, contrast all of it
about the mean grey of the picture, saturation scales the colour plane, and hue turns it. So they can be
exchanged, and in any order they are one 3x4 matrix, which OpenCV applies in one pass. Nothing is clipped or
rounded between them; torchvision clips after each, and differs where a value left 0..255 on the way.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# The luma of ITU-R BT.601, which is a pixel's grey, and NTSC's two colour axes, which are 0 for grey.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))

# Of the covariance of ImageNet's pixels in 0..1 (Krizhevsky et al., 2012); one eigenvector a column.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True, kw_only=True)
class ColourChange:
    """How strongly the colours of a picture change.

    Attributes:
        jitter: strengths s of brightness, contrast, saturation, whose factors are uniform in
            [max(0, 1 - s), 1 + s], and of hue, whose shift is uniform in [-s, s], in turns.
        lighting: deviation of the three weights of AlexNet's noise, one colour added to the whole picture. It
            is defined for pixels in 0..1. The official Bi-Real code adds it to pixels in 0..255 without that
            factor: its 0.1 moves a channel by some 0.01 grey levels, and here by some 3.
    """

    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    lighting: float = 0.0

    @classmethod
    def from_keys(cls, keys: Any) -> "ColourChange | None":
        """As the keys `colour_jitter` and `lighting` say; None where both are 0."""
        if not (any(keys.colour_jitter) or keys.lighting):
            return None
        return cls(jitter=keys.colour_jitter, lighting=keys.lighting)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What `colour_maps` needs for `count` pictures, one a column: (7, count).

        Factors of brightness, contrast and saturation, shift of hue, and the weights of the eigenvectors.
        """
        strengths = np.array(self.jitter)[:, None]
        lows, highs = np.maximum(1 - strengths, 0), 1 + strengths
        lows[3], highs[3] = -strengths[3], strengths[3]
        values = lows + (highs - lows) * rng.random((4, count))
        return np.concatenate([values, self.lighting * rng.standard_normal((3, count))])


def colour_maps(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map of each picture: pixel -> matrix (pixel, 1) + of_grey g, where g is the picture's mean grey.

    As in torchvision, brightness multiplies, saturation blends with each pixel's grey, and contrast with the
    mean grey. Hue turns the colour in YIQ, from red towards green, which keeps its grey; torchvision turns it
    in HSV.

    Args:
        parameters: (7, B), of `ColourChange.draw`.

    Returns:
        matrix (B, 3, 4) and of_grey (B,), in grey levels.
    """
    brightness, contrast, saturation, hue = parameters[:4]
    angle = -2 * math.pi * hue
    in_yiq = np.zeros((len(hue), 3, 3))
    in_yiq[:, 0, 0] = 1
    in_yiq[:, 1, 1] = in_yiq[:, 2, 2] = saturation * np.cos(angle)
    in_yiq[:, 2, 1] = saturation * np.sin(angle)
    in_yiq[:, 1, 2] = -in_yiq[:, 2, 1]
    in_yiq *= (brightness * contrast)[:, None, None]
    matrix = np.linalg.inv(_YIQ) @ in_yiq @ np.array(_YIQ)
    matrix[:, 0, 1] += 1e-6  # changes no pixel; OpenCV takes four times as long for a diagonal matrix
    shift = 255 * (np.array(_EIGENVECTORS) * _EIGENVALUES @ parameters[4:]).T
    return np.concatenate([matrix, shift[..., None]], axis=2), brightness * (1 - contrast)


def recolour(image: np.ndarray, matrix: np.ndarray, of_grey: float) -> np.ndarray:
    """A new (H, W, 3) uint8 picture by a map of `colour_maps`, clipped; a level or so from exact.

    OpenCV's coefficients have steps of 1/1024, and the mean is that of rounded greys.
    """
    if of_grey:
        matrix = matrix.copy()
        matrix[:, 3] += of_grey * cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.transform(image, matrix)
