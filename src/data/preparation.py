"""From a decoded picture to the network's input: the one way of evaluation, inference, search and export.

A recipe has one (`Recipe.preparation`), and the card of an exported model is written from it, so that they
cannot differ.
"""

from dataclasses import dataclass

import numpy as np

from .normalise import Normalise
from .resize import EvalCrop, Interpolation, prepare_picture, resize_whole


@dataclass(frozen=True)
class Preparation:
    """How a picture of any size becomes what a network takes.

    Attributes:
        image_size: side of the square, or the longer side of a whole picture, in pixels.
        mean: per RGB channel, 0..255.
        std: per RGB channel, 0..255, above 0.
        crop: see `resize.prepare_picture`; so are the next two.
        interpolation: how pixels are computed.
        crop_percentage: share of the resized side that is shown, in (0, 1].
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: EvalCrop = "centre"
    interpolation: Interpolation | str = "bilinear"
    crop_percentage: float = 1.0

    def square(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (S, S, 3) uint8, C-contiguous, with S = `image_size`."""
        return prepare_picture(
            picture,
            size=self.image_size,
            eval_crop=self.crop,
            crop_percentage=self.crop_percentage,
            interpolation=self.interpolation,
        )

    def whole(self, picture: np.ndarray, *, multiple: int = 1) -> np.ndarray:
        """(H, W, 3) uint8 -> (h, w, 3) uint8 with the longer side `image_size`: see `resize.resize_whole`."""
        return resize_whole(picture, self.image_size, self.interpolation, multiple=multiple)

    @property
    def normalise(self) -> Normalise:
        """What makes float32 planes of uint8 pictures."""
        return Normalise(self.mean, self.std)
