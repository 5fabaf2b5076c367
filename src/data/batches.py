"""What all batches share: order, random numbers, targets, shards, and preparing the next one meanwhile."""

import enum
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from ..common.errors import UserError
from .augment import batch as augment
from .order import repeated_order

log = logging.getLogger("quartet")

ImageOperation = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # on one (H, W, 3) uint8 image
Step = TypeVar("Step")
Batch = TypeVar("Batch")


class Stream(enum.IntEnum):
    """Each purpose has a stream of random numbers of its own: one setting does not change another's."""

    ORDER, CROP, FLIP, FIRST_FLIPS, TRANSLATE, CUTOUT, MIXUP, POLICY, COLOUR, ERASING, CUTMIX, NEGATIVES = (
        range(12)
    )


class Labelled(Protocol):
    """One split of a data set: (N,) int32 labels, and the name of each class, by label."""

    labels: np.ndarray
    class_names: tuple[str, ...]


def prefetch(
    begin: Callable[[Executor, Step], Callable[[], Batch]], steps: Iterable[Step], *, threads: int = 1
) -> Iterator[Batch]:
    """Yields the batch of each step while the next one is prepared by a pool of threads.

    The threads end with the generator; an exception of a thread is raised to the caller as it is.

    Args:
        begin: hands the work of a step to the pool, and returns a function that waits for its batch.
        steps: whatever `begin` understands.
        threads: of the pool.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    try:
        waits = (begin(pool, step) for step in steps)
        ahead = next(waits, None)
        while ahead is not None:
            current, ahead = ahead, next(waits, None)
            yield current()
    finally:
        pool.shutdown(cancel_futures=True)


class ShuffledBatches:
    """The base of training batches, for one rank of `size`: who is in a batch, and what is drawn for it.

    A batch is a pure function of (seed, epoch, index, rank), so a run can go on in the middle of an epoch.
    The global batch of a step, `batch_size * size` images and what is done to each, does not depend on how
    many ranks share it: rank r has the r-th of `size` equal parts. Only mixup and CutMix pair the images of
    each rank among themselves.

    An epoch has every image once, in an order of its own; the images that are left over are dropped. A set
    smaller than one global batch fills it with permutations of itself: an epoch is then one batch, and how
    often two images are in it differs by one at most. With `repetitions` an epoch has as many samples, but of
    fewer images (`repeated_order`), and `epoch_length` makes it longer or shorter.

    Args:
        source: one split of a data set.
        batch_size: images a rank in one step.
        seed: 0 or above.
        flip: mirror with probability one half, in every second epoch, or never.
        operations: applied in this order to each cropped and flipped image, each with the number of its
            stream of random numbers (`keys.OPERATIONS`).
        mixup_alpha: weight ~ Beta(alpha, alpha); 0 for none.
        cutmix_alpha: share of the image that stays ~ Beta(alpha, alpha); 0 for none. With mixup too, a batch
            has one of the two, with probability one half.
        mixup_per_image: a weight or a rectangle for each image, and the next one as its partner, instead of
            one weight or rectangle and a permutation for the batch.
        label_smoothing: share of the target spread over all classes, 0..1. With it, mixup or CutMix targets
            are distributions over classes, (B, K) float32; otherwise labels, (B,) int32.
        repetitions: how often each image of an epoch comes, differently augmented.
        epoch_length: samples of an epoch, in parts of the data set.
        instances: for losses of pairs, targets are a tuple of the above, which image of the set each row is,
            (B,) int32, and Gumbel noise that draws negatives, float32: "card", for the pairs of this rank's
            rows, (B, B); "global", for those of all ranks' rows, the same on every rank; "none".

    Raises:
        UserError: there are no images.
        ValueError: mixup or CutMix with instances, or an unknown `flip`.
    """

    workers = 1

    def __init__(
        self,
        source: Labelled,
        *,
        batch_size: int,
        seed: int,
        flip: Literal["none", "random", "alternating"] = "random",
        operations: Sequence[tuple[int, ImageOperation]] = (),
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mixup_per_image: bool = False,
        label_smoothing: float = 0.0,
        repetitions: int = 1,
        epoch_length: float = 1.0,
        instances: Literal["none", "card", "global"] = "none",
        rank: int = 0,
        size: int = 1,
    ):
        if flip not in ("none", "random", "alternating"):
            raise ValueError(f"flip must be none, random or alternating, not {flip!r}")
        if instances != "none" and (mixup_alpha or cutmix_alpha):
            raise ValueError("a mixture of images is no instance: no mixup or CutMix with instances")
        self.source, self.class_names, self._count = source, source.class_names, len(source.labels)
        self.batch_size, self.seed, self.flip, self.operations = batch_size, seed, flip, operations
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.mixup_per_image = mixup_per_image
        self.label_smoothing = label_smoothing
        self.soft_labels = bool(mixup_alpha or cutmix_alpha or label_smoothing)
        self.repetitions, self.epoch_length, self.instances = repetitions, epoch_length, instances
        self.rank, self.size, self._total = rank, size, batch_size * size
        self._mine = slice(rank * batch_size, (rank + 1) * batch_size)
        if not self._count:
            raise UserError("the training set has no images; check data_path")
        if self._total > self._count * repetitions:
            log.warning(
                "the training set has %d images: each batch of %d repeats them", self._count, self._total
            )
        self._first_flips = augment.draw_flips(self._rng(Stream.FIRST_FLIPS), self._count)
        self._order = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Batches a rank in one epoch."""
        return max(1, int(self._count * self.epoch_length) // self._total)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """Batch `index` of `epoch`, both counted from 0."""
        raise NotImplementedError("a subclass prepares the images")

    def batches(self, start_step: int, stop_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of the global steps start_step..stop_step-1 (epoch = step // len, index = step % len).

        Threads prepare the next batch while the caller uses the current one. They end with the generator.
        """
        steps = (divmod(step, len(self)) for step in range(start_step, stop_step))
        return prefetch(self._begin, steps, threads=self.workers)

    def _begin(self, pool: Executor, step: tuple[int, int]) -> Callable[[], tuple[np.ndarray, ...]]:
        """Hands the batch (epoch, index) to the pool; what is returned waits for it."""
        return pool.submit(self.batch, *step).result

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _indices(self, epoch: int, index: int) -> np.ndarray:
        """(B,) which images this rank's batch holds; the order of the last epoch is kept."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        known, order = self._order
        if known != epoch:
            rng = self._rng(Stream.ORDER, epoch)
            order = self._epoch_order(lambda: rng.permutation(self._count))
            self._order = (epoch, order)
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def _epoch_order(self, permutation: Callable[[], np.ndarray]) -> np.ndarray:
        """This rank's samples of an epoch, in the order of its batches."""
        samples = len(self) * self.batch_size
        if self.repetitions > 1:
            return repeated_order(
                permutation,
                samples=samples,
                repetitions=self.repetitions,
                rank=self.rank,
                size=self.size,
            )
        order = repeated_order(permutation, samples=samples * self.size, repetitions=1)
        return order.reshape(len(self), self._total)[:, self._mine].ravel()

    def _draw(
        self, epoch: int, index: int, stream: Stream, how: Callable[..., np.ndarray], *bounds: Any
    ) -> np.ndarray:
        """This rank's share, (..., B), of what `how` draws for the global batch."""
        return how(self._rng(stream, epoch, index), self._total, *bounds)[..., self._mine]

    def _flips(self, epoch: int, index: int, indices: np.ndarray) -> np.ndarray:
        """(B,) booleans: which images are mirrored."""
        if self.flip == "random":
            return self._draw(epoch, index, Stream.FLIP, augment.draw_flips)
        if self.flip == "alternating":
            return augment.alternating_flips(self._first_flips, indices, epoch)
        return np.zeros(len(indices), bool)

    def _operate(self, image: np.ndarray, epoch: int, index: int, row: int) -> np.ndarray:
        """The (H, W, 3) image of a row of this rank's batch after all operations."""
        for stream, operation in self.operations:
            image = operation(image, self._row_rng(stream, epoch, index, row))
        return image

    def _row_rng(self, stream: int, epoch: int, index: int, row: int) -> np.random.Generator:
        """A generator for one image of this rank's batch."""
        return self._rng(stream, epoch, index, self._mine.start + row)

    def _targets(self, epoch: int, index: int, indices: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """(B, K) float32 smoothed targets, or (B,) int32 labels; with instances and noise, if so asked."""
        targets = self.source.labels[indices]
        if self.soft_labels:
            targets = augment.smooth_one_hot(targets, len(self.class_names), self.label_smoothing)
        if self.instances == "none":
            return targets
        everywhere = self.instances == "global"
        rng = self._rng(Stream.NEGATIVES, epoch, index, *(() if everywhere else (self.rank,)))
        rows = self._total if everywhere else self.batch_size
        return targets, indices.astype(np.int32), rng.gumbel(size=(rows, rows)).astype(np.float32)

    def _mixing(self, epoch: int, index: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(B,) int32 partners and (B,) float32 weights of this rank's batch, and boxes (B, 4) for CutMix."""
        if self.cutmix_alpha:
            rng = self._rng(Stream.CUTMIX, epoch, index, self.rank)
            if not self.mixup_alpha or rng.random() < 0.5:
                return augment.draw_cutmix(
                    rng, self.batch_size, self.cutmix_alpha, side, per_image=self.mixup_per_image
                )
        rng = self._rng(Stream.MIXUP, epoch, index, self.rank)
        return *augment.draw_mixup(
            rng, self.batch_size, self.mixup_alpha, per_image=self.mixup_per_image
        ), None


class ShardBatches:
    """The base of evaluation batches: every image exactly once over all ranks, in the order of the set.

    Iterating gives (images, labels, valid) of one fixed shape: labels (batch_size,) int32, and how many of
    the first rows count; the rest are zeros. Ranks may have different numbers of batches, or none.

    Attributes:
        one_shape: whether all batches have the same shape, so that a network is compiled once for them.

    Args:
        source: one split of a data set.
        batch_size: rows of a batch.
        rank: which of `size` consecutive shards of the data set, whose lengths differ by one at most.
        size: number of shards.
    """

    one_shape = True

    def __init__(self, source: Labelled, *, batch_size: int, rank: int = 0, size: int = 1):
        self.source, self.class_names, self.batch_size = source, source.class_names, batch_size
        self.start, self.stop = (len(source.labels) * part // size for part in (rank, rank + 1))

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // self.batch_size)

    def _rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Which images each batch holds, and its labels."""
        for start in range(self.start, self.stop, self.batch_size):
            rows = slice(start, min(start + self.batch_size, self.stop))
            labels = np.zeros(self.batch_size, np.int32)
            labels[: rows.stop - start] = self.source.labels[rows]
            yield rows, labels
