"""Batches of pictures of any size, prepared one by one by a pool of threads, as bytes or normalised."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from ..model_utils.cpu import worker_count
from . import resize as geometry
from .augment import batch as augment
from .augment.colour import ColourChange, colour_maps, recolour
from .augment.erasing import Erasing
from .batches import Labelled, ShardBatches, ShuffledBatches, Stream, prefetch
from .normalise import Normalise

Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and deviation of each channel, 0..255

_PARTS = 4  # of a batch for each worker: pictures differ in cost, and all wait for the last part


class PictureSource(Labelled, Protocol):
    """One split of a data set of pictures."""

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; several threads call it at once."""

    def read_crop(self, index: int, choose: geometry.ChooseBox, least: int) -> np.ndarray:
        """A box of the picture, as `decode.decode_crop`; several threads call it at once."""


class PictureBatches(ShuffledBatches):
    """Shuffled, cropped, flipped pictures; the base class says how the batches are put together.

    The operations run in the order crop and resize, flip, operations, colour, erasing, CutMix. Mixup of the
    pixels is left to the device, and so is normalisation, unless the device is the CPU, where it takes the
    threads here a tenth of the time. OpenCV's own threads are switched off.

    Args:
        source: one split of a data set.
        image_size: side of the pictures in a batch, in pixels.
        train_crop: `resize` to a square of `resize_size`, whatever the shape, and a random crop of it (the
            official BiT), or `random_resized`, a crop of random area and ratio (Inception).
        resize_size: for `resize`, in pixels, at least `image_size`.
        crop_area: for `random_resized`, smallest and largest share of the picture.
        crop_ratio: for `random_resized`, smallest and largest width / height.
        interpolation: see `geometry.resize`.
        colour: jitter and lighting; None for none.
        erasing: random erasing; None for none.
        normalise: by what; None leaves bytes for the device.
        workers: threads; 0 for one a usable core, 8 at most.
        shared: what the base class takes (batch_size, seed, flip, mixup_alpha, rank, size ...).

    Raises:
        ValueError: an unknown `train_crop`, or a `resize_size` below `image_size`.
    """

    def __init__(
        self,
        source: PictureSource,
        *,
        image_size: int,
        train_crop: Literal["resize", "random_resized"] = "random_resized",
        resize_size: int = 0,
        crop_area: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: geometry.Interpolation = "bilinear",
        colour: ColourChange | None = None,
        erasing: Erasing | None = None,
        normalise: Normalisation | None = None,
        workers: int = 0,
        **shared: Any,
    ):
        if train_crop not in ("resize", "random_resized"):
            raise ValueError(f"train_crop must be resize or random_resized, not {train_crop!r}")
        if train_crop == "resize" and resize_size < image_size:
            raise ValueError(f"resize_size must be at least image_size {image_size}, not {resize_size}")
        super().__init__(source, **shared)
        self.image_size, self.train_crop, self.resize_size = image_size, train_crop, resize_size
        self.crop_area, self.crop_ratio, self.interpolation = crop_area, crop_ratio, interpolation
        self.colour, self.erasing, self.normalise = colour, erasing, normalise
        self.workers = workers or worker_count()

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Batch `index` of `epoch`, both counted from 0.

        Returns:
            images (B, S, S, 3) uint8, or normalised (B, 3, S, S) float32, C-contiguous, and targets (B, K)
            float32 or labels (B,) int32. With
            mixup also partners (B,) int32 and weights (B,) float32, the share of the image itself, for the
            device to mix the pixels with; the targets are mixed already. In a batch of CutMix, whose pixels
            are mixed too, the weights are 1.
        """
        (batch,) = prefetch(self._begin, [(epoch, index)], threads=self.workers)
        return batch

    def _begin(self, pool: Executor, step: tuple[int, int]) -> Callable[[], tuple[np.ndarray, ...]]:
        indices = self._indices(*step)
        flips, crop, change = self._flips(*step, indices), self._crops(*step), self._changes(*step)

        def picture(row: int) -> np.ndarray:
            image = crop(int(indices[row]), row)
            if flips[row]:
                image = cv2.flip(image, 1)  # a reversed copy takes numpy 40 times as long
            return change(self._operate(image, *step, row), row)

        targets, for_device, boxes = self._targets(*step, indices), (), None
        if self.mixup_alpha or self.cutmix_alpha:
            partners, weights, boxes = self._mixing(*step, self.image_size)
            targets = augment.mixup(targets, partners, weights)
            if self.mixup_alpha:
                for_device = partners, weights if boxes is None else np.ones_like(weights)
        images = _empty(self.batch_size, self.image_size, self.normalise)
        filled = _fill(
            pool, self.workers, images, len(images), picture, targets, *for_device, normalise=self.normalise
        )
        if boxes is None:
            return filled

        def cutmixed() -> tuple[np.ndarray, ...]:
            batch = filled()
            augment.cutmix(images.transpose(0, 2, 3, 1) if self.normalise else images, partners, boxes)
            return batch

        return pool.submit(cutmixed).result  # its pictures are before it in the queue: they get a thread

    def _changes(self, epoch: int, index: int) -> Callable[[np.ndarray, int], np.ndarray]:
        """A function (picture, row of the batch) -> picture: colour and erasing."""
        if self.colour:
            maps = colour_maps(self._draw(epoch, index, Stream.COLOUR, self.colour.draw))
        if self.erasing:
            boxes = self._draw(epoch, index, Stream.ERASING, self.erasing.draw, self.image_size).T

        def change(image: np.ndarray, row: int) -> np.ndarray:
            if self.colour:
                image = recolour(image, *(part[row] for part in maps))
            if self.erasing and boxes[row, 2]:
                image = self.erasing(image, boxes[row], self._row_rng(Stream.ERASING, epoch, index, row))
            return image

        return change

    def _crops(self, epoch: int, index: int) -> Callable[[int, int], np.ndarray]:
        """A function (which picture, row of the batch) -> (S, S, 3)."""
        side, whole = self.image_size, self.resize_size
        if self.train_crop == "resize":
            corners = self._draw(epoch, index, Stream.CROP, augment.draw_corners, whole - side)

            def crop(picture: int, row: int) -> np.ndarray:
                image = geometry.resize(self.source.read(picture), whole, whole, self.interpolation)
                return geometry.cut(image, (*corners[:, row], side, side))

        else:
            bounds = self.crop_area, self.crop_ratio
            numbers = self._draw(epoch, index, Stream.CROP, geometry.draw_boxes, *bounds)

            def crop(picture: int, row: int) -> np.ndarray:
                def choose(height: int, width: int) -> geometry.Box:
                    return geometry.random_box(height, width, numbers[:, row], self.crop_ratio)

                image = self.source.read_crop(picture, choose, side)
                return geometry.resize(image, side, side, self.interpolation)

        return crop


class PictureEvalBatches(ShardBatches):
    """Pictures (batch_size, S, S, 3) uint8, or normalised (batch_size, 3, S, S) float32.

    The base class says which are in which batch.

    Args:
        source: one split of a data set.
        image_size: side of the pictures in a batch, in pixels.
        eval_crop: `squash` or `centre`, see `geometry.prepare_picture`; so are the next two.
        crop_percentage: share of the resized side that is shown.
        interpolation: how pixels are computed.
        normalise: by what; None leaves bytes for the device.
        workers: threads; 0 for one a usable core, 8 at most.
        shared: what the base class takes (batch_size, rank, size).
    """

    def __init__(
        self,
        source: PictureSource,
        *,
        image_size: int,
        eval_crop: geometry.EvalCrop = "squash",
        crop_percentage: float = 1.0,
        interpolation: geometry.Interpolation = "bilinear",
        normalise: Normalisation | None = None,
        workers: int = 0,
        **shared: Any,
    ):
        super().__init__(source, **shared)
        self.image_size, self.eval_crop, self.normalise = image_size, eval_crop, normalise
        self.crop_percentage, self.interpolation = crop_percentage, interpolation
        self.workers = workers or worker_count()

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        return prefetch(self._begin, self._rows(), threads=self.workers)

    def _begin(self, pool: Executor, step: tuple[slice, np.ndarray]) -> Callable[[], tuple]:
        rows, labels = step

        def picture(row: int) -> np.ndarray:
            return geometry.prepare_picture(
                self.source.read(rows.start + row),
                size=self.image_size,
                eval_crop=self.eval_crop,
                crop_percentage=self.crop_percentage,
                interpolation=self.interpolation,
            )

        images = _empty(self.batch_size, self.image_size, self.normalise)
        valid = rows.stop - rows.start
        images[valid:] = 0
        return _fill(pool, self.workers, images, valid, picture, labels, valid, normalise=self.normalise)


def _empty(count: int, side: int, normalise: Normalisation | None) -> np.ndarray:
    return (
        np.empty((count, 3, side, side), np.float32)
        if normalise
        else np.empty((count, side, side, 3), np.uint8)
    )


def _fill(
    pool: Executor,
    workers: int,
    images: np.ndarray,
    count: int,
    picture: Callable,
    *rest: Any,
    normalise: Normalisation | None,
) -> Callable[[], tuple]:
    """Starts images[row] = picture(row) for `count` rows; what is returned waits for (images, *rest)."""
    cv2.setNumThreads(1)  # for a large picture, each worker would start threads of its own
    to_numbers = Normalise(*normalise) if normalise else None

    def fill(rows: np.ndarray) -> None:
        for row in rows.tolist():
            if to_numbers:
                to_numbers(picture(row), images[row])
            else:
                images[row] = picture(row)

    parts = np.array_split(np.arange(count), min(count, _PARTS * workers))
    futures = [pool.submit(fill, part) for part in parts]

    def batch() -> tuple:
        for future in futures:
            future.result()
        return images, *rest

    return batch
