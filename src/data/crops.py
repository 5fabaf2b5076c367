# SPDX-License-Identifier: Apache-2.0
"""What training makes of images: crops, flips and changes, and the network's numbers or bytes."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import ClassVar, Literal

import cv2
import numpy as np

from . import resize as geometry
from .augment import batch as augment
from .augment.colour import ColourChange, colour_maps, recolour
from .augment.erasing import Erasing
from .binary import ImageSet
from .damage import Pictures
from .normalise import Normalise
from .order import Step, Stream

Flip = Literal["none", "random", "alternating"]
ImageOperation = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # on one (H, W, 3) uint8 image


def flips_of(step: Step, flip: Flip) -> np.ndarray:
    """(B,) booleans: which images are mirrored, with probability one half, in every second epoch, or never.

    Raises:
        ValueError: an unknown `flip`.
    """
    if flip == "random":
        return step.draw(Stream.FLIP, augment.draw_flips)
    if flip == "alternating":
        return augment.alternating_flips(step.order.first_flips, step.images, step.epoch)
    if flip != "none":
        raise ValueError(f"flip must be none, random or alternating, not {flip!r}")
    return np.zeros(len(step.images), bool)


def _operate(
    operations: Sequence[tuple[int, ImageOperation]], image: np.ndarray, step: Step, row: int
) -> np.ndarray:
    for stream, operation in operations:
        image = operation(image, step.row_rng(stream, row))
    return image


@dataclass(eq=False)
class PadCrops:
    """Small images in memory, many at a time: normalised (B, 3, S, S) float32.

    The operations run in the order crop, flip, operations, normalise, jitter, translate, Cutout.

    Attributes:
        source: images of equal size; the padded data set is kept.
        normalise: to float32.
        crop_pad: pixels of reflected border for the random crop; 0 for none.
        cutout: side of the square that is set to the mean colour; 0 for none.
        translate: largest shift in pixels each way, over the mean colour; 0 for none.
        brightness_jitter: largest number added to or taken from all values of an image; 0 for none.
        contrast_jitter: an image's factor is 1 by at most this more or less; 0 for none.
        flip: see `flips_of`.
        operations: applied in this order to each cropped and flipped image, each with the number of its
            stream of random numbers (`keys.OPERATIONS`).
    """

    least_rows: ClassVar = 256  # of fewer, numpy and its threads take longer

    source: ImageSet
    normalise: Normalise
    _: KW_ONLY
    crop_pad: int = 4
    cutout: int = 8
    translate: int = 0
    brightness_jitter: float = 0.0
    contrast_jitter: float = 0.0
    flip: Flip = "random"
    operations: Sequence[tuple[int, ImageOperation]] = ()

    def __post_init__(self):
        self.side = self.source.images.shape[-1]
        self._padded = augment.reflect_pad(self.source.images, self.crop_pad)

    def begin(self, step: Step, images: np.ndarray) -> Callable[[np.ndarray], None]:
        """Draws what the batch needs; what is returned fills the given rows of `images`, in any thread."""
        flips = flips_of(step, self.flip)
        corners = step.draw(Stream.CROP, augment.draw_corners, 2 * self.crop_pad)
        jitter = self.brightness_jitter, self.contrast_jitter
        if any(jitter):
            values = step.draw(Stream.JITTER, augment.draw_jitter, *jitter)
        if self.translate:
            shifts = step.draw(Stream.TRANSLATE, augment.draw_shifts, self.translate)
        if self.cutout:
            holes = step.draw(Stream.CUTOUT, augment.draw_corners, self.side - self.cutout)

        def fill(rows: np.ndarray) -> None:
            part = slice(rows[0], rows[-1] + 1)
            pixels = augment.crop(self._padded, step.images[part], *corners[:, part], self.side)
            augment.flip(pixels, flips[part])
            if self.operations:
                for row, image in zip(rows.tolist(), pixels, strict=True):
                    changed = np.ascontiguousarray(image.transpose(1, 2, 0))
                    image[:] = _operate(self.operations, changed, step, row).transpose(2, 0, 1)
            self.normalise.planes(pixels, images[part])
            if any(jitter):
                augment.jitter(images[part], *values[:, part])
            if self.translate:
                images[part] = augment.translate(images[part], *shifts[:, part])
            if self.cutout:
                augment.cutout(images[part], *holes[:, part], self.cutout)

        return fill


@dataclass(eq=False)
class PictureCrops:
    """Pictures of any size, one by one: (B, S, S, 3) uint8, or normalised (B, 3, S, S) float32.

    The operations run in the order crop and resize, flip, operations, colour, erasing, normalise.

    Attributes:
        source: one split of a data set.
        side: of a picture in a batch, in pixels.
        train_crop: `resize` to a square of `resize_size`, whatever the shape, and a random crop of it (the
            official BiT), or `random_resized`, a crop of random area and ratio (Inception).
        resize_size: for `resize`, in pixels, at least `side`.
        crop_area: for `random_resized`, smallest and largest share of the picture.
        crop_ratio: for `random_resized`, smallest and largest width / height.
        interpolation: see `resize.Resizing`: a quick one.
        flip: see `flips_of`.
        operations: see `PadCrops`.
        colour: jitter and lighting; None for none.
        erasing: random erasing; None for none.
        normalise: to float32; None leaves bytes for the device. For a CPU it takes the threads here a tenth
            of the time.
    """

    least_rows: ClassVar = 1

    source: Pictures
    side: int
    _: KW_ONLY
    train_crop: Literal["resize", "random_resized"] = "random_resized"
    resize_size: int = 0
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: geometry.Interpolation = "bilinear"
    flip: Flip = "random"
    operations: Sequence[tuple[int, ImageOperation]] = ()
    colour: ColourChange | None = None
    erasing: Erasing | None = None
    normalise: Normalise | None = None

    def begin(self, step: Step, images: np.ndarray) -> Callable[[np.ndarray], None]:
        """As that of `PadCrops`."""
        flips, crop, change = flips_of(step, self.flip), self._crop(step), self._change(step)

        def fill(rows: np.ndarray) -> None:
            for row in rows.tolist():
                image = crop(int(step.images[row]), row)
                if flips[row]:
                    image = cv2.flip(image, 1)  # a reversed copy takes numpy 40 times as long
                image = change(_operate(self.operations, image, step, row), row)
                if self.normalise:
                    self.normalise(image, images[row])
                else:
                    images[row] = image

        return fill

    def _change(self, step: Step) -> Callable[[np.ndarray, int], np.ndarray]:
        """A function (picture, row of the batch) -> picture: colour and erasing."""
        if self.colour:
            maps = colour_maps(step.draw(Stream.COLOUR, self.colour.draw))
        if self.erasing:
            boxes = step.draw(Stream.ERASING, self.erasing.draw, self.side).T

        def change(image: np.ndarray, row: int) -> np.ndarray:
            if self.colour:
                image = recolour(image, *(part[row] for part in maps))
            if self.erasing and boxes[row, 2]:
                image = self.erasing(image, boxes[row], step.row_rng(Stream.ERASING, row))
            return image

        return change

    def _crop(self, step: Step) -> Callable[[int, int], np.ndarray]:
        """A function (which picture, row of the batch) -> (S, S, 3)."""
        side, whole = self.side, self.resize_size
        if self.train_crop == "resize":
            corners = step.draw(Stream.CROP, augment.draw_corners, whole - side)

            def plan(height: int, width: int, row: int) -> geometry.Resizing:
                part = (*corners[:, row].tolist(), side, side)
                source = (0, 0, height, width)
                return geometry.Resizing(source, whole, whole, part, self.interpolation, is_quick=True)

        else:
            numbers = step.draw(Stream.CROP, geometry.draw_boxes, self.crop_area, self.crop_ratio)

            def plan(height: int, width: int, row: int) -> geometry.Resizing:
                box = geometry.random_box(height, width, numbers[:, row], self.crop_ratio)
                return geometry.resize_box(box, side, side, self.interpolation, is_quick=True)

        return lambda picture, row: self.source.read(picture, partial(plan, row=row))
