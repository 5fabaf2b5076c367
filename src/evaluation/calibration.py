# SPDX-License-Identifier: Apache-2.0
"""Whether a classifier is as sure as it is right: sums over images, by how sure it is."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

BINS = 15  # as Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def _counts() -> np.ndarray:
    return np.zeros(BINS, np.int64)


@dataclass
class Calibration:
    """Images by the softmax probability of their prediction, in BINS intervals of equal width in 0..1.

    The sums add up over batches and over ranks. Images without a prediction are in none.

    Attributes:
        images: (BINS,) int64.
        right: (BINS,) int64, those of them that are predicted right.
        probability: (BINS,) float64, the sum of their probabilities.
    """

    images: np.ndarray = field(default_factory=_counts)
    right: np.ndarray = field(default_factory=_counts)
    probability: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def update(self, probability: np.ndarray, right: np.ndarray) -> None:
        """Adds images: their probabilities (B,), and which of them (B,) are predicted right."""
        place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        self.images += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[right], minlength=BINS)
        self.probability += np.bincount(place, weights=probability, minlength=BINS)

    @property
    def error(self) -> float | None:
        """The expected calibration error, in points; None without images.

        It is the mean over images of |share of right predictions - mean probability| of the interval that an
        image is in (Guo et al.).
        """
        total = self.images.sum()
        return 100 * float(np.abs(self.right - self.probability).sum() / total) if total else None

    def bins(self) -> Iterator[tuple[float, float, int]]:
        """Of each interval with images: mean probability and share right, in percent, and images."""
        for images, right, probability in zip(self.images, self.right, self.probability):
            if images:
                yield 100 * probability / images, 100 * right / images, int(images)
