# SPDX-License-Identifier: Apache-2.0
"""Batches for training, a pure function of the step, and for evaluation, every image exactly once."""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from .augment import batch as augment
from .crops import PadCrops, PictureCrops
from .damage import Pictures
from .normalise import Normalise
from .order import Order, Step, Stream
from .preparation import Preparation
from .read_ahead import in_parts, pictures_ahead, read_ahead

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) of the images of a batch.

    Weights and rectangles are drawn for the global batch, and `augment.partners` says who is mixed with whom.

    Attributes:
        mixup_alpha: weight ~ Beta(alpha, alpha); 0 for none.
        cutmix_alpha: share of the image that stays ~ Beta(alpha, alpha); 0 for none. With mixup too, a batch
            has one of the two, with probability one half.
        per_image: a weight or a rectangle for each image, instead of one for the batch.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    per_image: bool = False

    def draw(self, step: Step, side: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(B,) float32 weights of this rank's images themselves, and for CutMix boxes (B, 4)."""
        order = step.order
        if self.cutmix_alpha:
            rng = step.rng(Stream.CUTMIX)
            if not self.mixup_alpha or rng.random() < 0.5:
                boxes = augment.draw_cutmix(
                    rng, order.total, self.cutmix_alpha, side, per_image=self.per_image
                )[order.mine]
                return (1 - boxes[:, 2] * boxes[:, 3] / side**2).astype(np.float32), boxes
        rng = step.rng(Stream.MIXUP)
        weights = augment.draw_mixup(rng, order.total, self.mixup_alpha, per_image=self.per_image)
        return weights[order.mine], None


class TrainBatches:
    """Shuffled, augmented batches. `Order` says who is in them, `crops` what becomes of each image.

    Mixup of the pixels is left to the device (`layers.pixels`), CutMix is done here.

    Args:
        order: of the images of `crops.source`.
        crops: makes the images.
        mixing: mixup and CutMix; None for none.
        label_smoothing: share of the target spread over all classes, 0..1.
        more_targets: gives the other arrays of a batch that a loss wants beside the classes.
        workers: threads that prepare images; 0: one for each usable core, at most 8.

    Attributes:
        soft_labels: whether targets are distributions over classes, (B, K) float32, as with label smoothing,
            mixup and CutMix; otherwise they are labels, (B,) int32.
    """

    def __init__(
        self,
        order: Order,
        crops: PadCrops | PictureCrops,
        *,
        mixing: Mixing | None = None,
        label_smoothing: float = 0.0,
        more_targets: Callable[[Step], Arrays] | None = None,
        workers: int = 0,
    ):
        self.order, self.crops, self.class_names = order, crops, crops.source.class_names
        self.mixing, self.label_smoothing, self.more_targets = mixing, label_smoothing, more_targets
        self.workers = workers
        self.soft_labels = bool(mixing or label_smoothing)
        self._partners = augment.partners(order.batch_size, order.repetitions)

    def __len__(self) -> int:
        """Batches a rank in one epoch."""
        return len(self.order)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray | Arrays, ...]:
        """Batch `index` of `epoch`, both counted from 0.

        Returns:
            images, (B, S, S, 3) uint8 or normalised (B, 3, S, S) float32, C-contiguous, and targets; with
            `more_targets` the second is a tuple of targets and those. With mixup also partners (B,) int32 and
            weights (B,) float32, the share of the image itself, for the device to mix the pixels with; the
            targets are mixed already. In a batch of CutMix the weights are 1.
        """
        (batch,) = read_ahead(self._begin, [(epoch, index)], workers=self.workers)
        return batch

    def batches(self, start_step: int, stop_step: int) -> Iterator[tuple[np.ndarray | Arrays, ...]]:
        """The batches of the global steps start_step..stop_step-1 (epoch = step // len, index = step % len).

        Threads prepare the next batch while the caller uses the current one. They end with the generator.
        """
        steps = (divmod(step, len(self)) for step in range(start_step, stop_step))
        return read_ahead(self._begin, steps, workers=self.workers)

    def _begin(self, pool: Executor, where: tuple[int, int]) -> Callable[[], tuple]:
        step, crops = self.order.step(*where), self.crops
        targets, for_device, boxes = crops.source.labels[step.images], (), None
        if self.soft_labels:
            targets = augment.smooth_one_hot(targets, len(self.class_names), self.label_smoothing)
        if self.mixing:
            weights, boxes = self.mixing.draw(step, crops.side)
            targets = augment.mixup(targets, self._partners, weights)
            if self.mixing.mixup_alpha:
                for_device = self._partners, weights if boxes is None else np.ones_like(weights)
        if self.more_targets:
            targets = targets, *self.more_targets(step)
        count, side = self.order.batch_size, crops.side
        shape, kind = ((3, side, side), np.float32) if crops.normalise else ((side, side, 3), np.uint8)
        images = np.empty((count, *shape), kind)
        filled = in_parts(
            pool, crops.begin(step, images), count, workers=self.workers, least=crops.least_rows
        )

        def batch() -> tuple:
            filled()
            if boxes is not None:
                pixels = images.transpose(0, 2, 3, 1) if crops.normalise else images
                augment.cutmix(pixels, self._partners, boxes)
            return images, targets, *for_device

        # The images of a batch are before its CutMix in the queue: they get a thread.
        return batch if boxes is None else pool.submit(batch).result


class EvalBatches:
    """Every image exactly once over all ranks, in the order of the set.

    Iterating gives (images, labels, valid): images as bytes or normalised, labels (batch_size,) int32, and
    how many of the first rows count; the rest are zeros. Ranks may have different numbers of batches, or
    none.

    Whole pictures are of many shapes: consecutive ones that come out equal share a batch of up to
    `batch_size`, every row of which counts. How many batches there are is known when all are read.

    Attributes:
        one_shape: whether all batches have the same shape, so that a network is compiled once for them.
        numbers: (n,) int64, the images of this rank by their place in the set, in the order of the batches.

    Args:
        source: one split of a data set.
        preparation: what becomes of a picture.
        batch_size: rows of a batch.
        whole_multiple: whole pictures, with sides that are multiples of this; None: squares.
        normalised: (N, 3, H, W) float32, and not (N, H, W, 3) uint8.
        workers: threads that prepare pictures; 0: one for each usable core, at most 8.
        rank: which of `size` consecutive shards of the data set, whose lengths differ by one at most.
        size: number of shards.
    """

    def __init__(
        self,
        source: Pictures,
        preparation: Preparation,
        *,
        batch_size: int,
        whole_multiple: int | None = None,
        normalised: bool = True,
        workers: int = 0,
        rank: int = 0,
        size: int = 1,
    ):
        self.source, self.class_names, self.preparation = source, source.class_names, preparation
        self.batch_size, self.whole_multiple, self.workers = batch_size, whole_multiple, workers
        self.normalise: Normalise | None = preparation.normalise if normalised else None
        self.one_shape = whole_multiple is None
        self.numbers = np.arange(*(len(source.labels) * part // size for part in (rank, rank + 1)))

    def __len__(self) -> int:
        """Batches of squares."""
        if not self.one_shape:
            raise TypeError("batches of whole pictures have no length before they are read")
        return -(-len(self.numbers) // self.batch_size)

    def of(self, numbers: Sequence[int] | np.ndarray) -> "EvalBatches":
        """Batches of these images alone, in their order."""
        some = copy.copy(self)
        some.numbers = np.asarray(numbers, np.int64)
        return some

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        pixels = getattr(self.source, "images", None)
        if pixels is not None and self.one_shape and self.preparation.keeps(*pixels.shape[2:]):
            prepared = self._in_memory(pixels)
        else:
            prepared = pictures_ahead(
                self.numbers.tolist(), self._picture, batch_size=self.batch_size, workers=self.workers
            )
        for rows, images in prepared:
            labels = self.source.labels[rows]
            empty = self.batch_size - len(labels) if self.one_shape else 0
            if empty:
                images, labels = (
                    np.concatenate([part, np.zeros((empty, *part.shape[1:]), part.dtype)])
                    for part in (images, labels)
                )
            yield images, labels, len(rows)

    def _picture(self, number: int) -> np.ndarray:
        if self.whole_multiple is None:
            plan = self.preparation.plan_square
        else:
            plan = partial(self.preparation.plan_whole, multiple=self.whole_multiple)
        picture = self.source.read(number, plan)
        return self.normalise(picture) if self.normalise else picture

    def _in_memory(self, pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `_picture` makes of images that need no resize, (N, 3, S, S) uint8, a batch at a time."""
        for start in range(0, len(self.numbers), self.batch_size):
            rows = self.numbers[start : start + self.batch_size]
            part = pixels[rows]
            if self.normalise:
                yield rows, self.normalise.planes(part)
            else:
                yield rows, np.ascontiguousarray(part.transpose(0, 2, 3, 1))
