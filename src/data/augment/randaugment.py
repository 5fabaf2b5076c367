# SPDX-License-Identifier: Apache-2.0
"""RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation", 2019)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .operators import OPERATORS


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Applies a few random operators of `OPERATORS` to an image, one after the other, equally strong.

    The operators are drawn with replacement, all with the same probability, whatever the image. Their
    strength is drawn once an image from N(magnitude, std) and taken as it comes: 20, as the BiT recipe of
    an earlier port has it, doubles every operator's usual reach (60 degrees, a colour factor of 3.7), and
    makes Solarize and about half of the Posterize draws leave the image as it was.

    Attributes:
        layers: operators an image; 0 leaves it as it is.
        magnitude: mean strength, 10 being the upper end of each operator's range.
        std: deviation of the strength, not negative.
    """

    layers: int
    magnitude: float
    std: float

    @classmethod
    def from_keys(cls, keys: Any) -> "RandAugment | None":
        """As the keys `randaugment_*` say; None without layers."""
        if not keys.randaugment_layers:
            return None
        return cls(
            layers=keys.randaugment_layers,
            magnitude=keys.randaugment_magnitude,
            std=keys.randaugment_std,
        )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A new (H, W, 3) uint8 image from one; all that is random comes from `rng`."""
        magnitude = rng.normal(self.magnitude, self.std)
        operators = tuple(OPERATORS.values())
        result = Image.fromarray(image)
        for choice in rng.integers(len(operators), size=self.layers):
            operator = operators[choice]
            result = operator.function(result, operator.value(magnitude), rng)
        return np.array(result)
