"""Batches from an image set in memory: for training, a pure function of the step; for evaluation, exact."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from .augment import batch as augment
from .batches import ShardBatches, ShuffledBatches, Stream
from .binary import ImageSet


class TrainBatches(ShuffledBatches):
    """Shuffled, augmented, normalised batches; the base class says how they are put together.

    The operations run in the order crop, flip, operations, normalise, translate, Cutout, mixup or CutMix.

    Args:
        images: one split of a data set.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        crop_pad: pixels of reflected border for the random crop; 0 for none. The padded data set is kept.
        cutout: side of the square that is set to the mean colour; 0 for none.
        translate: largest shift in pixels each way, over the mean colour; 0 for none.
        shared: what the base class takes (batch_size, seed, flip, mixup_alpha, rank, size ...).
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_pad: int = 4,
        cutout: int = 8,
        translate: int = 0,
        **shared: Any,
    ):
        super().__init__(images, **shared)
        self.mean, self.std = mean, std
        self.crop_pad, self.cutout, self.translate = crop_pad, cutout, translate
        self._padded = augment.reflect_pad(images.images, crop_pad)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of `epoch`, both counted from 0.

        Returns:
            images (B, 3, 32, 32) float32, C-contiguous, and targets (B, K) float32 or labels (B,) int32.
        """
        indices, side = self._indices(epoch, index), self.source.images.shape[-1]
        draw = partial(self._draw, epoch, index)
        tops, lefts = draw(Stream.CROP, augment.draw_corners, 2 * self.crop_pad)
        images = augment.crop(self._padded, indices, tops, lefts, side)
        images = augment.flip(images, self._flips(epoch, index, indices))
        if self.operations:
            for row, image in enumerate(images):
                pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
                pixels = self._operate(pixels, epoch, index, row)
                images[row] = pixels.transpose(2, 0, 1)
        images = augment.normalise(images, self.mean, self.std)
        if self.translate:
            images = augment.translate(images, *draw(Stream.TRANSLATE, augment.draw_shifts, self.translate))
        if self.cutout:
            corners = draw(Stream.CUTOUT, augment.draw_corners, side - self.cutout)
            images = augment.cutout(images, *corners, self.cutout)
        targets = self._targets(epoch, index, indices)
        if self.mixup_alpha or self.cutmix_alpha:
            partners, weights, boxes = self._mixing(epoch, index, side)
            targets = augment.mixup(targets, partners, weights)
            if boxes is None:
                images = augment.mixup(images, partners, weights)
            else:
                augment.cutmix(images.transpose(0, 2, 3, 1), partners, boxes)
        return images, targets


class EvalBatches(ShardBatches):
    """Normalised images, (batch_size, 3, 32, 32) float32; the base class says which are in which batch.

    Args:
        images: one split of a data set.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        shared: what the base class takes (batch_size, rank, size).
    """

    def __init__(self, images: ImageSet, *, mean: Sequence[float], std: Sequence[float], **shared: Any):
        super().__init__(images, **shared)
        self.mean, self.std = mean, std

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for rows, labels in self._rows():
            valid = rows.stop - rows.start
            images = np.zeros((self.batch_size, *self.source.images.shape[1:]), np.float32)
            images[:valid] = augment.normalise(self.source.images[rows], self.mean, self.std)
            yield images, labels, valid
