# SPDX-License-Identifier: Apache-2.0
"""Preparing the next batch by threads while the caller uses the current one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np

from ..model_utils.cpu import worker_count
from .decode import UnreadableImage

Step = TypeVar("Step")
Batch = TypeVar("Batch")
Item = TypeVar("Item")

_PARTS = 4  # of a batch for each thread: pictures differ in cost, and all wait for the last part


def read_ahead(
    begin: Callable[[Executor, Step], Callable[[], Batch]], steps: Iterable[Step], *, workers: int = 0
) -> Iterator[Batch]:
    """Yields the batch of each step while a pool of threads prepares the next one.

    The threads end with the generator; an exception of a thread is raised to the caller as it is. OpenCV's
    own threads are switched off: for a large picture, each worker would start some.

    Args:
        begin: hands the work of a step to the pool, and returns a function that waits for its batch.
        steps: whatever `begin` understands; taken as they are needed.
        workers: threads; 0: one for each usable core, at most 8.
    """
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(workers or worker_count(), thread_name_prefix="batches")
    try:
        waits = (begin(pool, step) for step in steps)
        ahead = next(waits, None)
        while ahead is not None:
            current, ahead = ahead, next(waits, None)
            yield current()
    finally:
        pool.shutdown(cancel_futures=True)


def in_parts(
    pool: Executor, work: Callable[[np.ndarray], None], count: int, *, workers: int = 0, least: int = 1
) -> Callable[[], None]:
    """Starts work(rows) for all of the rows 0..count-1, in parts; what is returned waits for them.

    Args:
        work: takes row numbers, consecutive ones.
        count: of rows.
        workers: threads of the pool, as `read_ahead` takes them.
        least: rows of a part, if there are as many.
    """
    parts = max(1, min(_PARTS * (workers or worker_count()), count // least))
    futures = [pool.submit(work, rows) for rows in np.array_split(np.arange(count), parts)]

    def wait() -> None:
        for future in futures:
            future.result()

    return wait


def pictures_ahead(
    items: Iterable[Item],
    prepare: Callable[[Item], np.ndarray],
    *,
    batch_size: int,
    workers: int = 0,
    skip: Callable[[Item, UnreadableImage], None] | None = None,
) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Prepares pictures one by one and yields them in order, neighbours of equal shape together.

    The items are taken as they are needed, and the pictures of at most two batches are read ahead.

    Args:
        items: whatever `prepare` understands.
        prepare: an item -> an array; several threads call it at once.
        batch_size: most pictures of a batch.
        workers: as `read_ahead` takes them.
        skip: takes the items that cannot be read, in their place in the order; without it they are an error.

    Yields:
        (items, pictures): up to `batch_size` items, and what was made of them, stacked.

    Raises:
        UnreadableImage: there is no `skip`, and a picture cannot be read.
    """

    def begin(pool: Executor, some: list[Item]) -> Callable[[], list]:
        futures = [pool.submit(prepare, item) for item in some]
        return lambda: list(zip(some, futures, strict=True))

    left = iter(items)
    parts = iter(lambda: list(islice(left, batch_size)), [])
    together: list[tuple[Item, np.ndarray]] = []
    for ahead in read_ahead(begin, parts, workers=workers):
        for item, future in ahead:
            try:
                image = future.result()
            except UnreadableImage as error:
                if skip is None:
                    raise
                skip(item, error)
                continue
            if together and image.shape != together[0][1].shape:
                yield _stacked(together)
                together = []
            together.append((item, image))
            if len(together) == batch_size:
                yield _stacked(together)
                together = []
    if together:
        yield _stacked(together)


def _stacked(together: list[tuple[Item, np.ndarray]]) -> tuple[list[Item], np.ndarray]:
    items, images = zip(*together, strict=True)
    return list(items), np.stack(images)
