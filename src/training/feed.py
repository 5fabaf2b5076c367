# SPDX-License-Identifier: Apache-2.0
"""Batches to the device: handed over one by one, or through the queue that a card has for data sets."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
import numpy as np

from ..data.batches import TrainBatches
from .train_step import TrainStep

log = logging.getLogger("quartet")

Outputs = tuple[ms.Tensor, ...]


def run_steps(
    train_step: Callable[..., Outputs], batches: TrainBatches, start: int, stop: int, *, sink: bool
) -> Iterator[Outputs]:
    """Trains on the batches of steps start..stop-1; yields what each step puts out, not waited for.

    Args:
        train_step: takes a batch as tensors.
        batches: the training data of this rank; the next batch is prepared while a step runs.
        sink: through the device's queue (MindSpore's dataset sink, on Ascend and GPU): the transfer of the
            next batches then goes on while a step runs, too.
    """
    if sink:
        yield from _through_queue(train_step, batches, start, stop)
        return
    with contextlib.closing(batches.batches(start, stop)) as parts:
        for batch in parts:
            yield train_step(*map(as_tensors, batch))


def run_course(
    train_step: TrainStep, batches: TrainBatches, start: int, updates: int, *, accumulate: int, sink: bool
) -> Iterator[Outputs]:
    """`run_steps` from batch `start`, between two updates, to the end; some parameters stop on the way.

    Args:
        updates: of the whole run, of `accumulate` batches each.
    """
    for first, last in train_step.stretches(updates):
        if start < last * accumulate:
            train_step.freeze(first)
            if first:
                still, all_of_them = train_step.still
                log.info(
                    "%d of %d trained tensors stand still from update %d on: they are left out of the graph",
                    still, all_of_them, first + 1,
                )  # fmt: skip
            begin = max(start, first * accumulate)
            yield from run_steps(train_step, batches, begin, last * accumulate, sink=sink)


def as_tensors(part: np.ndarray | tuple[np.ndarray, ...]) -> ms.Tensor | tuple[ms.Tensor, ...]:
    """One array of a batch for the device, or several, `mutable` as a graph takes others for constants."""
    return ms.mutable(tuple(map(ms.Tensor, part))) if isinstance(part, tuple) else ms.Tensor(part)


class _Rows:
    """The batches of steps start..stop-1 as rows of a MindSpore data set, which repeats them at will.

    A row is flat, so the arrays of a batch whose targets are several stand side by side.

    Attributes:
        error: what ended the preparation of a batch. MindSpore makes a RuntimeError of many lines of it.
    """

    def __init__(self, batches: TrainBatches, start: int, stop: int):
        self._batches, self._steps = batches, (start, stop)
        self.error: Exception | None = None
        with contextlib.closing(batches.batches(start, start + 1)) as first:
            self._lengths = [len(part) if isinstance(part, tuple) else None for part in next(first)]

    def __len__(self) -> int:
        return self._steps[1] - self._steps[0]

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        try:
            with contextlib.closing(self._batches.batches(*self._steps)) as parts:
                for batch in parts:
                    yield tuple(
                        array for part in batch for array in (part if isinstance(part, tuple) else (part,))
                    )
        except Exception as error:
            self.error = error
            raise

    @property
    def columns(self) -> list[str]:
        return [f"array_{number}" for number in range(sum(length or 1 for length in self._lengths))]

    def as_batch(self, arrays: tuple[Any, ...]) -> list[Any]:
        """A flat row as the parts of its batch again."""
        rest = iter(arrays)
        return [
            next(rest) if length is None else ms.mutable(tuple(next(rest) for _ in range(length)))
            for length in self._lengths
        ]


def _through_queue(
    train_step: Callable[..., Outputs], batches: TrainBatches, start: int, stop: int
) -> Iterator[Outputs]:
    rows = _Rows(batches, start, stop)
    dataset = ms.dataset.GeneratorDataset(rows, rows.columns, shuffle=False, num_parallel_workers=1)
    # One batch a call: each step's loss, overflow and gradient norm stay to be had.
    step = ms.data_sink(lambda *arrays: train_step(*rows.as_batch(arrays)), dataset, sink_size=1)
    for _ in range(len(rows)):
        try:
            outputs = step()
        except RuntimeError:
            if rows.error is not None:
                raise rows.error from None
            raise
        yield outputs
