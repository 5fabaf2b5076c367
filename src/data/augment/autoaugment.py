"""AutoAugment (Cubuk et al., "Learning augmentation strategies from data", 2019): the ImageNet policy."""

from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from ..batches import ImageOperation
from .operators import OPERATORS

# (operator, probability, magnitude 0..10) twice a sub-policy: the paper's table of the ImageNet policy, with
# the five that it lists twice. AutoContrast, Equalize and Invert have no magnitude.
IMAGENET = (
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

# The paper's ranges: those of RandAugment, but for the bits that Posterize keeps.
RANGES = MappingProxyType({**OPERATORS, "Posterize": OPERATORS["Posterize"]._replace(low=4, high=8)})


def autoaugment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One sub-policy of IMAGENET at random: each of its two operators with its own probability, in order.

    A magnitude m means low + m / 10 (high - low), as in the authors' code, over the paper's ranges: Posterize
    and Solarize grow weaker with it, and 5 is no enhancement at all. In torchvision and MindSpore's own
    AutoAugment every operator grows stronger with its magnitude, in ten steps from none to the utmost.

    Args:
        image: (H, W, 3) uint8.
        rng: all that is random comes from it.

    Returns:
        a new (H, W, 3) uint8 picture.
    """
    result = Image.fromarray(image)
    for name, probability, magnitude in IMAGENET[rng.integers(len(IMAGENET))]:
        if rng.random() < probability:
            operator = RANGES[name]
            result = operator.function(result, operator.value(magnitude), rng)
    return np.array(result)


def autoaugment_from_keys(keys: Any) -> ImageOperation | None:
    """`autoaugment` where the key of that name asks for it."""
    return autoaugment if keys.autoaugment == "imagenet" else None
