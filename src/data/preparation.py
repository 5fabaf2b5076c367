# SPDX-License-Identifier: Apache-2.0
"""From a picture to the network's input: the one way of evaluation, inference, search and export.

A recipe has one (`Recipe.preparation`), and the card of an exported model is written from it, so that they
cannot differ.
"""

import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .decode import decode_resized
from .normalise import Normalise
from .resize import Box, Interpolation, Resizing, resize_box

EvalCrop = Literal["squash", "centre"]

_LONGEST = 4  # times the short side: beyond, the ends of a panorama cannot be in its central square


@dataclass(frozen=True)
class Preparation:
    """How a picture of any size becomes what a network takes.

    Attributes:
        image_size: side of the square, or the longer side of a whole picture, in pixels.
        mean: per RGB channel, 0..255.
        std: per RGB channel, 0..255, above 0.
        crop: what is resized to `image_size / crop_percentage` before the central square is cut out: `squash`
            both sides, whatever the shape, as the official BiT does; `centre` the short side, and the other
            in proportion. A panorama is first cut to 4:1.
        interpolation: see `resize.Resizing`.
        crop_percentage: share of the resized side that is shown, in (0, 1]: 0.875 and 224 make 256 before the
            cut.

    Raises:
        ValueError: a value is unknown or out of range.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: EvalCrop = "centre"
    interpolation: Interpolation = "bilinear"
    crop_percentage: float = 1.0

    def __post_init__(self):
        for name, kind in (("crop", EvalCrop), ("interpolation", Interpolation)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}")
        if self.image_size < 1 or min(self.std) <= 0 or not 0 < self.crop_percentage <= 1:
            raise ValueError("image_size and std must be above 0, crop_percentage above 0 and 1 at most")

    def plan_square(self, height: int, width: int) -> Resizing:
        """How a (height, width) picture becomes a square of side `image_size`."""
        source, short = (0, 0, height, width), round(self.image_size / self.crop_percentage)
        resized = (short, short)
        if self.crop == "centre":
            source = _central(height, width, _LONGEST * min(height, width))
            resized = tuple(round(side * short / min(height, width)) for side in source[2:])
        return Resizing(source, *resized, _central(*resized, self.image_size), self.interpolation)

    def plan_whole(self, height: int, width: int, *, multiple: int = 1) -> Resizing:
        """How all of it gets `image_size` as its longer side, and the other in proportion.

        Both are rounded to a multiple of `multiple`, once that at least: a panorama so thin that it would
        come out below is stretched. A network that halves maps five times by windows that tile them takes 32.
        """
        scale = self.image_size / max(height, width)
        resized = (max(1, round(side * scale / multiple)) * multiple for side in (height, width))
        return resize_box((0, 0, height, width), *resized, self.interpolation)

    def square(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (S, S, 3) uint8, C-contiguous, with S = `image_size`."""
        return self.plan_square(*picture.shape[:2])(picture)

    def keeps(self, height: int, width: int) -> bool:
        """Whether `square` leaves pictures of this size as they are."""
        return height == width == self.image_size and self.crop_percentage == 1

    def read_square(self, source: str | os.PathLike | bytes) -> np.ndarray:
        """The square of a file, see `decode.decode_resized`, which says what is raised."""
        return decode_resized(source, self.plan_square)

    @property
    def normalise(self) -> Normalise:
        """What makes float32 planes of uint8 pictures."""
        return Normalise(self.mean, self.std)


def _central(height: int, width: int, side: int) -> Box:
    """The central square of a side, or as much of it as there is."""
    rows, columns = min(height, side), min(width, side)
    return (height - rows) // 2, (width - columns) // 2, rows, columns
