# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation: several views of an image, and the weighted mean of a network's outputs for them.

What it buys: cifar10-fast has 94.1 % after 13 epochs from the plain view and 94.6 % with the mirror image; a
run of Hiverge's network has 93.27 %, and 94.06 % where the least confident quarter has six views.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    """One view of an image.

    Attributes:
        weight: of its outputs in the mean, 0..1.
        mirrored: left and right are changed over.
        shift: pixels that the window is moved, down and to the right; -1: up and to the left. What it then
            shows from beyond the border is reflected, and the border pixel itself is not repeated.
    """

    weight: float
    mirrored: bool = False
    shift: int = 0


def _pairs(*weights_and_shifts: tuple[float, int]) -> tuple[View, ...]:
    """An image and its mirror image for each shift; the weight is that of either."""
    return tuple(
        View(weight, mirrored, shift) for weight, shift in weights_and_shifts for mirrored in (False, True)
    )


# The first view of each is the plain one.
TTA = {
    "none": (View(1.0),),
    "flip": _pairs((1 / 2, 0)),
    "six": _pairs((1 / 4, 0), (1 / 8, -1), (1 / 8, 1)),
    "six_equal": _pairs((1 / 6, 0), (1 / 6, -1), (1 / 6, 1)),
}


def views_per_image(tta: str, share: float) -> float:
    """How many views of an image a network sees on average: the plain one, and the others of a share.

    Args:
        tta: a name of TTA.
        share: of the images that are seen in all views, 0..1.
    """
    return 1 + share * (len(TTA[tta]) - 1)


def seen_as(images: np.ndarray, view: View) -> np.ndarray:
    """One view of each image, float32 (B, C, H, W) or uint8 (B, H, W, C); C-contiguous, of the same shape."""
    height, width = (1, 2) if images.dtype == np.uint8 else (2, 3)
    for axis in (height, width) if view.shift else ():
        size = images.shape[axis]
        places = np.pad(np.arange(size), 1, mode="reflect")[1 + view.shift :][:size]
        images = images.take(places, axis)
    return np.ascontiguousarray(np.flip(images, width) if view.mirrored else images)


def of_further_views(
    predict: Callable[[np.ndarray], np.ndarray], tta: str
) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function images -> the weighted sum of the outputs for all views but the plain one, in float64.

    None where there is no other view. The plain one has the weight `TTA[tta][0].weight`.
    """
    further = TTA[tta][1:]

    def outputs(images: np.ndarray) -> np.ndarray:
        return sum(view.weight * predict(seen_as(images, view)).astype(np.float64) for view in further)

    return outputs if further else None


def confidence(logits: np.ndarray) -> np.ndarray:
    """The highest softmax probability of each row of logits, (B, K) -> (B,) float64; 0 where undefined."""
    with np.errstate(invalid="ignore"):
        highest = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return np.nan_to_num(highest, nan=0.0)
