"""Pictures shown whole, at their own aspect ratio: batches of those that come out equal in shape."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Any, TypeVar

import cv2
import numpy as np

from ..model_utils.cpu import worker_count
from . import resize as geometry
from .batches import ShardBatches, prefetch
from .decode import UnreadableImage
from .normalise import Normalise
from .picture_batches import Normalisation, PictureSource

Item = TypeVar("Item")


def whole_batches(
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    *,
    long_side: int,
    side_multiple: int = 1,
    interpolation: geometry.Interpolation = "bilinear",
    normalise: Normalisation | None = None,
    batch_size: int,
    workers: int = 0,
    skip: Callable[[Item, UnreadableImage], None] | None = None,
) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Reads pictures by a pool of threads and yields them in order, neighbours of equal shape together.

    The items are taken as they are needed, and the pictures of at most two batches are read ahead.

    Args:
        items: whatever `read` understands.
        read: an item -> (H, W, 3) uint8; several threads call it at once.
        long_side: see `geometry.resize_whole`, in pixels; so are the next two.
        side_multiple: what both sides are divisible by.
        interpolation: how pixels are computed.
        normalise: by what; None leaves bytes.
        batch_size: most pictures of a batch.
        workers: threads; 0 for one a usable core, 8 at most.
        skip: takes the items that cannot be read, in their place in the order; without it they are an error.

    Yields:
        (items, pictures): up to `batch_size` items, and (n, h, w, 3) uint8, or normalised (n, 3, h, w)
        float32, C-contiguous.

    Raises:
        UnreadableImage: there is no `skip`, and a picture cannot be read.
    """
    workers = workers or worker_count()
    to_numbers = Normalise(*normalise) if normalise else None
    cv2.setNumThreads(1)  # for a large picture, each worker would start threads of its own

    def picture(item: Item) -> np.ndarray:
        image = geometry.resize_whole(read(item), long_side, interpolation, multiple=side_multiple)
        return to_numbers(image) if to_numbers else image

    def begin(pool: Executor, some: list[Item]) -> Callable[[], list]:
        futures = [pool.submit(picture, item) for item in some]
        return lambda: list(zip(some, futures, strict=True))

    left = iter(items)
    parts = iter(lambda: list(islice(left, batch_size)), [])
    together: list[tuple[Item, np.ndarray]] = []
    for read_ahead in prefetch(begin, parts, threads=workers):
        for item, future in read_ahead:
            try:
                image = future.result()
            except UnreadableImage as error:
                if skip is None:
                    raise
                skip(item, error)
                continue
            if together and (len(together) == batch_size or image.shape != together[0][1].shape):
                yield _stacked(together)
                together = []
            together.append((item, image))
    if together:
        yield _stacked(together)


def _stacked(together: list[tuple[Item, np.ndarray]]) -> tuple[list[Item], np.ndarray]:
    items, images = zip(*together, strict=True)
    return list(items), np.stack(images)


class WholePictureBatches(ShardBatches):
    """Evaluation batches of whole pictures: the longer side is `image_size`, the aspect ratio is kept.

    Iterating gives (images, labels, valid) as the base class says, but of many shapes: consecutive pictures
    that come out equal share a batch of up to `batch_size`, every row of which counts. How many batches there
    are is known when all are read.

    Args:
        source: one split of a data set.
        image_size: of the longer side, in pixels.
        side_multiple: what both sides are divisible by, see `geometry.resize_whole`.
        interpolation: how pixels are computed.
        normalise: by what; None leaves bytes for the device.
        workers: threads; 0 for one a usable core, 8 at most.
        shared: what the base class takes (batch_size, rank, size).
    """

    one_shape = False
    __len__ = None

    def __init__(
        self,
        source: PictureSource,
        *,
        image_size: int,
        side_multiple: int = 1,
        interpolation: geometry.Interpolation = "bilinear",
        normalise: Normalisation | None = None,
        workers: int = 0,
        **shared: Any,
    ):
        super().__init__(source, **shared)
        self.image_size, self.side_multiple = image_size, side_multiple
        self.interpolation, self.normalise, self.workers = interpolation, normalise, workers

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        batches = whole_batches(
            range(self.start, self.stop),
            self.source.read,
            long_side=self.image_size,
            side_multiple=self.side_multiple,
            interpolation=self.interpolation,
            normalise=self.normalise,
            batch_size=self.batch_size,
            workers=self.workers,
        )
        for rows, images in batches:
            yield images, self.source.labels[rows], len(rows)
