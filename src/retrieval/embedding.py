"""From pictures to embeddings of unit length, whatever the network, the shapes and the number of pictures."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any, Self, TypeVar

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common import heartbeat
from ..common.errors import UserError
from ..data.decode import Plan, UnreadableImage
from ..data.preparation import Preparation
from ..data.read_ahead import pictures_ahead
from ..model_utils.device_adapter import without_graph

Key = TypeVar("Key")
Read = Callable[[Plan], np.ndarray]
Skip = Callable[[Any, UnreadableImage], None]

CHUNK = 128  # pictures


class Embedder:
    """Embeddings of whole pictures: the longer side is the preparation's, the aspect ratio is kept.

    The network runs without a graph, as pictures have many shapes. Each call of it costs, and a new shape
    more, so that the pictures of a chunk are sorted by shape.

    Args:
        network: with `embed`, (N, 3, H, W) float32 -> (N, D); from now on in evaluation mode.
        preparation: gives the longer side, in pixels, and how pixels are computed and normalised.
        side_multiple: what both sides must be divisible by for this network.
        batch_size: most pictures that the network sees at once.
        workers: threads that read, as `read_ahead` takes them.
    """

    def __init__(
        self,
        network: nn.Cell,
        preparation: Preparation,
        *,
        side_multiple: int = 1,
        batch_size: int = 32,
        workers: int = 0,
    ):
        self.network = network.set_train(False)
        self.batch_size, self.workers = batch_size, workers
        self._plan = partial(preparation.plan_whole, multiple=side_multiple)
        self._normalise = preparation.normalise

    @classmethod
    def from_trained(cls, trained: Any, *, batch_size: int = 32) -> Self:
        """The embedder of a `src.trained.Trained`, at the size of its evaluation."""
        recipe = trained.recipe
        how = {"batch_size": batch_size, "workers": recipe.config.workers}
        return cls(trained.network, recipe.preparation, side_multiple=recipe.side_multiple, **how)

    def embed(
        self, pictures: Iterable[tuple[Key, Read]], *, skip: Skip | None = None
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """Embeds any number of pictures; those of two chunks are in memory, as bytes.

        Args:
            pictures: a key and a function that reads the picture and resizes it by a plan, in a thread of the
                pool: `decode_resized` of a file. They are taken as they are needed.
            skip: takes the key of each picture that cannot be read, and why; without it that is an error.

        Yields:
            (key, embedding), in the given order: (D,) float32 of length 1, or all zeros where the network
            gives zeros.

        Raises:
            UnreadableImage: a picture cannot be read, and there is no `skip`.
            UserError: the network answers with what is not a number, or with embeddings whose length follows
                the shape of the picture.
        """
        batches = pictures_ahead(
            pictures,
            lambda item: item[1](self._plan),
            batch_size=CHUNK,
            workers=self.workers,
            skip=skip and (lambda item, error: skip(item[0], error)),
        )
        resized = ((key, image) for items, images in batches for (key, _), image in zip(items, images))
        length = None
        while chunk := list(islice(resized, CHUNK)):
            vectors = self._run_by_shape([image for _, image in chunk])
            for (key, _), vector in zip(chunk, vectors, strict=True):
                length = length or len(vector)
                self._check(key, vector, length)
                yield key, vector

    def _run_by_shape(self, images: list[np.ndarray]) -> list[np.ndarray]:
        vectors: list[np.ndarray] = [None] * len(images)
        order = sorted(range(len(images)), key=lambda place: images[place].shape)
        for _, group in groupby(order, key=lambda place: images[place].shape):
            while some := list(islice(group, self.batch_size)):
                heartbeat.progress()
                batch = np.stack([self._normalise(images[place]) for place in some])
                for place, vector in zip(some, self._run(batch), strict=True):
                    vectors[place] = vector
        return vectors

    def _check(self, key: Any, vector: np.ndarray, length: int) -> None:
        name = type(self.network).__name__
        if len(vector) != length:
            raise UserError(
                f"{name} gives {length} and {len(vector)} features for pictures of two shapes; "
                "use the image size that it was trained with"
            )
        if not np.isfinite(vector).all():
            raise UserError(
                f"{key}: {name} answers with NaN or infinity; "
                "its weights are damaged, or too large for float16 (amp_level O0)"
            )

    def _run(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, D) float32, rows of length 1 or 0."""
        with without_graph():
            embeddings = self.network.embed(ms.Tensor(images)).astype(ms.float32).asnumpy()
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
        return (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)
