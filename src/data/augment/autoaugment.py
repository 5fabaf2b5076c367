# SPDX-License-Identifier: Apache-2.0
"""AutoAugment's policy for ImageNet (Cubuk et al., arXiv 1805.09501), in two readings of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from .operators import GREY, OPERATORS, Operator, affine, either_sign

SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]

# (operator, probability, magnitude) twice a sub-policy: the paper's table, with the five that it lists twice.
# AutoContrast, Equalize and Invert have no magnitude.
_PAPER = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)


@dataclass(frozen=True)
class AutoAugment:
    """One sub-policy at random: each of its two operators with its own probability, in order.

    Attributes:
        policy: the sub-policies, all equally likely.
        operators: what their names and magnitudes mean.
    """

    policy: Sequence[SubPolicy]
    operators: Mapping[str, Operator]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A new (H, W, 3) uint8 picture from one; all that is random comes from `rng`."""
        result = Image.fromarray(image)
        for name, probability, magnitude in self.policy[rng.integers(len(self.policy))]:
            if rng.random() < probability:
                operator = self.operators[name]
                result = operator.function(result, operator.value(magnitude), rng)
        return np.array(result)


def _steps(function: Any, low: float, high: float) -> Operator:
    """Ten strengths, 0 to 9, from `low` to `high`."""
    return Operator(function, low, low + (high - low) * 10 / 9)


def _enhance(kind: type) -> Operator:
    """More or less of a quality: factors of 1 +- 0.1 a step."""
    return _steps(lambda image, by, rng: kind(image).enhance(1 + either_sign(by, rng)), 0, 0.9)


# The common PyTorch port (DeepVoltaire's): every operator grows stronger with its magnitude.
_PORT = MappingProxyType(
    {
        **{name: OPERATORS[name] for name in ("AutoContrast", "Equalize", "Invert")},
        "Rotate": _steps(lambda image, degrees, rng: image.rotate(degrees, fillcolor=GREY), 0, 30),
        "Posterize": _steps(lambda image, bits, rng: ImageOps.posterize(image, round(bits)), 8, 4),
        "Solarize": _steps(lambda image, level, rng: ImageOps.solarize(image, level), 256, 0),
        "Color": _enhance(ImageEnhance.Color),
        "Contrast": _enhance(ImageEnhance.Contrast),
        "Sharpness": _enhance(ImageEnhance.Sharpness),
        "ShearX": _steps(
            affine(lambda slope, w, h: (1, slope, 0, 0, 1, 0), Image.Resampling.BICUBIC), 0, 0.3
        ),
    }
)

POLICIES = MappingProxyType(
    {
        # The port leaves out the last sub-policy.
        "imagenet": AutoAugment(_PAPER[:-1], _PORT),
        # The ranges of the authors' TPU code, as of RandAugment, but for the bits that Posterize keeps.
        # Posterize and Solarize grow weaker with the magnitude, and 5 is no enhancement at all.
        "imagenet_paper": AutoAugment(
            _PAPER, {**OPERATORS, "Posterize": OPERATORS["Posterize"]._replace(low=4, high=8)}
        ),
    }
)


def autoaugment_from_keys(keys: Any) -> AutoAugment | None:
    """The policy that the key `autoaugment` names; None for none."""
    return POLICIES.get(keys.autoaugment)
