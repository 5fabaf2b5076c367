# SPDX-License-Identifier: Apache-2.0
"""From pictures to embeddings of unit length, whatever the network, the shapes and the number of pictures."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ..common import heartbeat
from ..common.errors import UserError
from ..data.decode import Plan, UnreadableImage
from ..data.preparation import Preparation
from ..data.read_ahead import pictures_ahead
from ..data.resize import Resizing

if TYPE_CHECKING:
    from mindspore import nn

Key = TypeVar("Key")
Read = Callable[[Plan], np.ndarray]
Skip = Callable[[Any, UnreadableImage], None]

CHUNK = 128  # pictures


class Embedder:
    """Embeddings of pictures, whatever computes them.

    Each call of the model costs, and a new shape more, so that the pictures of a chunk are sorted by shape.

    Args:
        run: pictures of one shape as `prepare` makes them, (N, ...) -> embeddings (N, D) float32.
        plan: (height, width) of a picture -> how it is resized.
        prepare: (h, w, 3) uint8 -> what `run` takes of one picture.
        name: of the model, for messages.
        batch_size: most pictures that the model sees at once.
        workers: threads that read, as `read_ahead` takes them.
        square: all become squares of one size, whatever their shape.

    Attributes:
        made_square: of squares, the keys of the pictures so far that were not square themselves.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        plan: Plan,
        prepare: Callable[[np.ndarray], np.ndarray],
        *,
        name: str,
        batch_size: int = 32,
        workers: int = 0,
        square: bool = False,
    ):
        self._run, self._plan, self._prepare, self._name = run, plan, prepare, name
        self.batch_size, self.workers, self.square = batch_size, workers, square
        self.made_square: list[Any] = []

    @classmethod
    def of_network(
        cls, network: "nn.Cell", preparation: Preparation, *, side_multiple: int = 1, **how: int
    ) -> Self:
        """Of whole pictures: the longer side is the preparation's, the aspect ratio is kept.

        The network runs without a graph, as pictures have many shapes.

        Args:
            network: with `embed`, (N, 3, H, W) float32 -> (N, D); from now on in evaluation mode.
            preparation: gives the longer side, in pixels, and how pixels are computed and normalised.
            side_multiple: what both sides must be divisible by for this network.
            how: batch_size and workers.
        """
        plan = partial(preparation.plan_whole, multiple=side_multiple)
        run, name = _without_graph(network.set_train(False)), type(network).__name__
        return cls(run, plan, preparation.normalise, name=name, **how)

    @classmethod
    def from_trained(cls, trained: Any, *, batch_size: int = 32) -> Self:
        """The embedder of a `src.trained.Trained`, at the size of its evaluation."""
        recipe = trained.recipe
        how = {"batch_size": batch_size, "workers": recipe.config.workers}
        return cls.of_network(trained.network, recipe.preparation, side_multiple=recipe.side_multiple, **how)

    @classmethod
    def from_predictor(cls, predictor: Any, *, workers: int = 0) -> Self:
        """Of squares, by the card of an exported model's `src.deploy.predict.Predictor`."""
        card = predictor.card
        prepare = np.asarray if card.input_type == "uint8" else card.preparation.normalise
        how = {"name": card.model, "batch_size": predictor.batch_size, "workers": workers, "square": True}
        return cls(predictor.embeddings, card.preparation.plan_square, prepare, **how)

    @property
    def facts(self) -> dict[str, int]:
        """For a report: how many pictures were made square, where all become so."""
        return {"made_square": len(self.made_square)} if self.square else {}

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
            self._read,
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

    def _read(self, item: tuple[Key, Read]) -> np.ndarray:
        sides: tuple[int, int] = (0, 0)

        def plan(height: int, width: int) -> Resizing:
            nonlocal sides
            sides = height, width
            return self._plan(height, width)

        image = item[1](plan)
        if self.square and sides[0] != sides[1]:
            self.made_square.append(item[0])
        return image

    def _run_by_shape(self, images: list[np.ndarray]) -> list[np.ndarray]:
        vectors: list[np.ndarray] = [None] * len(images)
        order = sorted(range(len(images)), key=lambda place: images[place].shape)
        for _, group in groupby(order, key=lambda place: images[place].shape):
            while some := list(islice(group, self.batch_size)):
                heartbeat.progress()
                batch = np.stack([self._prepare(images[place]) for place in some])
                for place, vector in zip(some, _unit(self._run(batch)), strict=True):
                    vectors[place] = vector
        return vectors

    def _check(self, key: Any, vector: np.ndarray, length: int) -> None:
        if len(vector) != length:
            raise UserError(
                f"{self._name} gives {length} and {len(vector)} features for pictures of two shapes; "
                "use the image size that it was trained with"
            )
        if not np.isfinite(vector).all():
            raise UserError(
                f"{key}: {self._name} answers with NaN or infinity; "
                "its weights are damaged, or too large for float16 (amp_level O0)"
            )


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32, rows of length 1 or 0."""
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)


def _without_graph(network: "nn.Cell") -> Callable[[np.ndarray], np.ndarray]:
    import mindspore as ms

    from ..model_utils.device_adapter import without_graph

    def run(images: np.ndarray) -> np.ndarray:
        with without_graph():
            return network.embed(ms.Tensor(images)).astype(ms.float32).asnumpy()

    return run
