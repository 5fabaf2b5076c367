"""Batches from an image set in memory: for training, a pure function of the step; for evaluation, exact."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from src.data import augment
from src.data.cifar10 import ImageSet
from src.model_utils.errors import UserError

# Each purpose has a stream of random numbers of its own: one setting does not change another's numbers.
_ORDER, _CROP, _FLIP, _FIRST_FLIPS, _TRANSLATE, _CUTOUT, _MIXUP = range(7)


class TrainBatches:
    """Shuffled, augmented batches, for one rank of `size`.

    A batch is a pure function of (seed, epoch, index, rank), so a run can go on in the middle of an epoch.
    The global batch of a step, `batch_size * size` images and what is done to each, does not depend on how
    many ranks share it: rank r has the r-th of `size` equal parts. Only mixup pairs the images of each rank
    among themselves.

    The operations run in the order crop, flip, normalise, translate, Cutout, mixup.

    Args:
        images: one split of a data set.
        batch_size: images a rank in one step; the images that are left over in an epoch are dropped.
        seed: 0 or above.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        crop_pad: pixels of reflected border for the random crop; 0 for none. The padded data set is kept.
        flip: mirror with probability one half, in every second epoch, or never.
        cutout: side of the square that is set to the mean colour; 0 for none.
        translate: largest shift in pixels each way, over the mean colour; 0 for none.
        mixup_alpha: weight ~ Beta(alpha, alpha), one a batch; 0 for none.
        label_smoothing: share of the target spread over all classes, 0..1.
        soft_labels: targets as (B, K) float32; otherwise labels as (B,) int32.

    Raises:
        UserError: the data set is smaller than one global batch.
        ValueError: mixup or label smoothing without soft labels, or an unknown `flip`.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop_pad: int = 4,
        flip: Literal["none", "random", "alternating"] = "random",
        cutout: int = 8,
        translate: int = 0,
        mixup_alpha: float = 0.0,
        label_smoothing: float = 0.0,
        soft_labels: bool = True,
        rank: int = 0,
        size: int = 1,
    ):
        if flip not in ("none", "random", "alternating"):
            raise ValueError(f"flip must be none, random or alternating, not {flip!r}")
        if not soft_labels and (mixup_alpha or label_smoothing):
            raise ValueError("mixup and label smoothing need soft labels")
        if batch_size * size > len(images):
            ranks = f" on {size} ranks" if size > 1 else ""
            raise UserError(
                f"batch_size {batch_size}{ranks} needs {batch_size * size} images, but the training set has "
                f"{len(images)}; lower batch_size"
            )
        self.image_set = images
        self.class_names = images.class_names
        self.batch_size, self.seed, self.mean, self.std = batch_size, seed, mean, std
        self.crop_pad, self.flip, self.cutout, self.translate = crop_pad, flip, cutout, translate
        self.mixup_alpha, self.label_smoothing, self.soft_labels = mixup_alpha, label_smoothing, soft_labels
        self.rank, self.size = rank, size
        self._padded = augment.reflect_pad(images.images, crop_pad)
        self._first_flips = augment.draw_flips(self._rng(_FIRST_FLIPS), len(images))
        self._order = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Batches a rank in one epoch."""
        return len(self.image_set) // (self.batch_size * self.size)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of `epoch`, both counted from 0.

        Returns:
            images (B, 3, 32, 32) float32, C-contiguous, and targets (B, K) float32 or labels (B,) int32.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        total, side = self.batch_size * self.size, self.image_set.images.shape[-1]
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        indices = self._epoch_order(epoch)[index * total : (index + 1) * total][mine]

        def draw(how: Callable[..., np.ndarray], purpose: int, *bounds: int) -> np.ndarray:
            return how(self._rng(purpose, epoch, index), total, *bounds)[..., mine]

        tops, lefts = draw(augment.draw_corners, _CROP, 2 * self.crop_pad)
        images = augment.crop(self._padded, indices, tops, lefts, side)
        if self.flip == "random":
            images = augment.flip(images, draw(augment.draw_flips, _FLIP))
        elif self.flip == "alternating":
            images = augment.flip(images, augment.alternating_flips(self._first_flips, indices, epoch))
        images = augment.normalise(images, self.mean, self.std)
        if self.translate:
            images = augment.translate(images, *draw(augment.draw_shifts, _TRANSLATE, self.translate))
        if self.cutout:
            corners = draw(augment.draw_corners, _CUTOUT, side - self.cutout)
            images = augment.cutout(images, *corners, self.cutout)

        labels = self.image_set.labels[indices]
        if not self.soft_labels:
            return images, labels
        targets = augment.smooth_one_hot(labels, len(self.class_names), self.label_smoothing)
        if self.mixup_alpha:
            rng = self._rng(_MIXUP, epoch, index, self.rank)
            images, targets = augment.mixup(
                images, targets, *augment.draw_mixup(rng, self.batch_size, self.mixup_alpha)
            )
        return images, targets

    def batches(self, start_step: int, stop_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of the global steps start_step..stop_step-1 (epoch = step // len, index = step % len).

        One thread prepares the next batch while the caller uses the current one. It ends with the generator.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="train-batches") as thread:
            steps = range(start_step, stop_step)
            futures = (thread.submit(self.batch, *divmod(step, len(self))) for step in steps)
            ahead = next(futures, None)
            while ahead is not None:
                current, ahead = ahead, next(futures, None)
                yield current.result()

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch, the same on all ranks; the last one is kept."""
        known, order = self._order
        if known != epoch:
            order = self._rng(_ORDER, epoch).permutation(len(self.image_set))
            self._order = (epoch, order)
        return order


class EvalBatches:
    """Every image exactly once over all ranks, in the order of the data set, in batches of one fixed shape.

    Iterating gives (images, labels, valid): images (batch_size, 3, 32, 32) float32, labels (batch_size,)
    int32, and how many of the first rows count; the rest are zeros. Ranks may have different numbers of
    batches, or none.

    Args:
        images: one split of a data set.
        batch_size: rows of a batch.
        mean: per channel, 0..255.
        std: per channel, 0..255.
        rank: which of `size` consecutive shards of the data set, whose lengths differ by one at most.
        size: number of shards.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        rank: int = 0,
        size: int = 1,
    ):
        self.image_set = images
        self.class_names = images.class_names
        self.batch_size, self.mean, self.std = batch_size, mean, std
        self.start, self.stop = (len(images) * part // size for part in (rank, rank + 1))

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for start in range(self.start, self.stop, self.batch_size):
            rows = slice(start, min(start + self.batch_size, self.stop))
            valid = rows.stop - start
            images = np.zeros((self.batch_size, *self.image_set.images.shape[1:]), np.float32)
            images[:valid] = augment.normalise(self.image_set.images[rows], self.mean, self.std)
            labels = np.zeros(self.batch_size, np.int32)
            labels[:valid] = self.image_set.labels[rows]
            yield images, labels, valid
