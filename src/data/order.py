# SPDX-License-Identifier: Apache-2.0
"""Which images a training batch has, and its random numbers: functions of seed, epoch, index and rank."""

import enum
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.errors import UserError
from .augment.batch import draw_flips

log = logging.getLogger("quartet")


class Stream(enum.IntEnum):
    """Each purpose has a stream of random numbers of its own: one setting does not change another's.

    Operations of `keys.OPERATIONS` that are added have numbers from 100 on, what a model draws from 200 on.
    """

    ORDER, CROP, FLIP, FIRST_FLIPS, TRANSLATE, CUTOUT, MIXUP, POLICY, COLOUR, ERASING, CUTMIX, JITTER = range(
        12
    )


class Order:
    """Who is in a batch, for one rank of `size`.

    A batch is a pure function of (seed, epoch, index, rank), so a run can go on in the middle of an epoch.
    The global batch of a step, `batch_size * size` images and what is drawn for each, does not depend on how
    many ranks share it: rank r has the r-th of `size` equal parts.

    An epoch has every image once, in an order of its own; the images that are left over are dropped. A set
    smaller than one global batch fills it with permutations of itself: an epoch is then one batch, and how
    often two images are in it differs by one at most. With `repetitions` an epoch has as many samples, but of
    fewer images (`repeated_order`), and `epoch_length` makes it longer or shorter.

    Args:
        count: images of the set.
        batch_size: images a rank in one step.
        seed: 0 or above.
        rank: which of `size` parts of each global batch.
        size: number of ranks.
        repetitions: how often each image of an epoch comes, one after the other.
        epoch_length: samples of an epoch, in parts of the set.

    Raises:
        UserError: there are no images.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
        repetitions: int = 1,
        epoch_length: float = 1.0,
    ):
        self.count, self.batch_size, self.seed, self.rank = count, batch_size, seed, rank
        self.total, self.repetitions = batch_size * size, repetitions
        self.mine = slice(rank * batch_size, (rank + 1) * batch_size)
        if not count:
            raise UserError("the training set has no images; check data_path")
        if self.total > count * repetitions:
            log.warning("the training set has %d images: each batch of %d repeats them", count, self.total)
        self._length = max(1, int(count * epoch_length) // self.total)
        self._last = (-1, np.empty((0, 0), np.int64))

    def __len__(self) -> int:
        """Batches a rank in one epoch."""
        return self._length

    def rng(self, *key: int) -> np.random.Generator:
        """The generator of a stream's number, and what it is for."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    @functools.cached_property
    def first_flips(self) -> np.ndarray:
        """(N,) booleans: which images `alternating_flips` mirrors in the first epoch."""
        return draw_flips(self.rng(Stream.FIRST_FLIPS), self.count)

    def step(self, epoch: int, index: int) -> "Step":
        """This rank's batch `index` of `epoch`, both counted from 0; the order of the last epoch is kept."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}")
        known, order = self._last
        if known != epoch:
            rng = self.rng(Stream.ORDER, epoch)
            samples = repeated_order(
                lambda: rng.permutation(self.count), len(self) * self.total, self.repetitions
            )
            order = samples.reshape(len(self), self.total)[:, self.mine].copy()
            self._last = (epoch, order)
        return Step(self, epoch, index, order[index])


@dataclass(frozen=True)
class Step:
    """One rank's part of one global batch.

    Attributes:
        order: it is a part of.
        epoch: counted from 0.
        index: of the batch in its epoch.
        images: (B,) int64, which image of the set each row is.
    """

    order: Order
    epoch: int
    index: int
    images: np.ndarray

    def rng(self, stream: int, *key: int) -> np.random.Generator:
        """The generator of a purpose for the global batch; `key` tells several apart."""
        return self.order.rng(stream, self.epoch, self.index, *key)

    def row_rng(self, stream: int, row: int) -> np.random.Generator:
        """The generator of a purpose for one row of this rank's part."""
        return self.rng(stream, self.order.mine.start + row)

    def draw(self, stream: int, how: Callable[..., np.ndarray], *bounds: Any) -> np.ndarray:
        """This rank's share, (..., B), of what `how(rng, rows, *bounds)` draws for the global batch."""
        return how(self.rng(stream), self.order.total, *bounds)[..., self.order.mine]


def repeated_order(permutation: Callable[[], np.ndarray], samples: int, repetitions: int) -> np.ndarray:
    """The samples of an epoch, (samples,): each image that is drawn comes `repetitions` times in a row.

    The order of MultiGrain's sampler (Berman et al., arXiv 1902.05509; Hoffer et al., arXiv 1901.09335). With
    a batch size that is no multiple of `repetitions`, two batches share an image.

    Args:
        permutation: gives the next order of all images, (N,); asked again when it is used up.
        samples: how many.
        repetitions: of an image.
    """
    instances = -(-samples // repetitions)
    order = permutation()
    while len(order) < instances:
        order = np.concatenate([order, permutation()])
    return np.repeat(order[:instances], repetitions)[:samples]
