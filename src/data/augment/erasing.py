# SPDX-License-Identifier: Apache-2.0
"""Random erasing (Zhong et al., 2020) of finished pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import resize as geometry

AREA = (0.02, 1 / 3)  # share of the picture
RATIO = (0.3, 3.3)  # height / width; its logarithm is uniform


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """Fills a random rectangle, with the mean colour or with noise.

    Attributes:
        probability: that a picture loses a rectangle.
        noise: fill with normal noise of that mean and deviation, clipped to 0..255; otherwise with the mean,
            which normalisation makes 0 but for its rounding.
        mean: per channel, 0..255.
        std: per channel, 0..255.
    """

    probability: float
    noise: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_keys(cls, keys: Any) -> "Erasing | None":
        """As the keys `random_erasing` and `erasing_fill` say; None without erasing."""
        if not keys.random_erasing:
            return None
        return cls(
            probability=keys.random_erasing,
            noise=keys.erasing_fill == "noise",
            mean=keys.image_mean,
            std=keys.image_std,
        )

    def draw(self, rng: np.random.Generator, count: int, side: int) -> np.ndarray:
        """Boxes (4, count) int64 (top, left, height, width) in pictures of side x side; none has height 0.

        The first of ten tries that is smaller than the picture both ways counts, as in torchvision. Where all
        fail, in pictures of a few pixels, nothing is erased.
        """
        numbers = geometry.draw_boxes(rng, count, AREA, RATIO)
        shares, ratios = numbers[:-2].reshape(2, -1, count)
        heights, widths = (
            np.rint(side * np.sqrt(part)).astype(int) for part in (shares * ratios, shares / ratios)
        )
        fits = (np.minimum(heights, widths) >= 1) & (np.maximum(heights, widths) < side)
        chosen = fits.any(0) & (rng.random(count) < self.probability)
        first = fits.argmax(0), np.arange(count)
        sides = np.where(chosen, [heights[first], widths[first]], 0)
        return np.concatenate([(numbers[-2:] * (side - sides + 1)).astype(int), sides])

    def __call__(self, image: np.ndarray, box: geometry.Box, rng: np.random.Generator) -> np.ndarray:
        """A copy of the picture without the box; `rng` gives the noise."""
        result = image.copy()
        hole, fill = geometry.cut(result, box), np.array(self.mean, np.float32)
        if self.noise:
            fill = fill + rng.standard_normal(hole.shape, np.float32) * np.array(self.std, np.float32)
        hole[:] = np.rint(fill).clip(0, 255).astype(np.uint8)
        return result
