"""From a picture to the network's input: the one way of evaluation, inference, search and export.

A recipe has one (`Recipe.preparation`), and the card of an exported model is written from it, so that they
cannot differ.
"""

import os
from dataclasses import dataclass
from typing import get_args

import numpy as np

from .decode import decode_resized
from .normalise import Normalise
from .resize import EvalCrop, Interpolation, Resizing, square_plan, whole_plan


@dataclass(frozen=True)
class Preparation:
    """How a picture of any size becomes what a network takes.

    Attributes:
        image_size: side of the square, or the longer side of a whole picture, in pixels.
        mean: per RGB channel, 0..255.
        std: per RGB channel, 0..255, above 0.
        crop: see `resize.square_plan`; so is the next one.
        interpolation: see `resize.Resizing`.
        crop_percentage: share of the resized side that is shown, in (0, 1].

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
        """How a (height, width) picture becomes a square of side `image_size`: see `resize.square_plan`."""
        return square_plan(
            height,
            width,
            size=self.image_size,
            crop=self.crop,
            crop_percentage=self.crop_percentage,
            interpolation=self.interpolation,
        )

    def plan_whole(self, height: int, width: int, *, multiple: int = 1) -> Resizing:
        """How all of it gets `image_size` as its longer side: see `resize.whole_plan`."""
        return whole_plan(
            height, width, size=self.image_size, interpolation=self.interpolation, multiple=multiple
        )

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
