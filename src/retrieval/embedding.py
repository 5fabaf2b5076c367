"""From pictures to embeddings of unit length, whatever the network, the shapes and the number of pictures."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common import heartbeat
from ..common.errors import UserError
from ..data.decode import Plan, UnreadableImage
from ..data.preparation import Preparation
from ..data.read_ahead import pictures_ahead
from ..model_utils.device_adapter import Device, without_graph

Key = TypeVar("Key")
Read = Callable[[Plan], np.ndarray]
Skip = Callable[[Any, UnreadableImage], None]


class TrainedNetwork(Protocol):
    """What an embedder asks of a trained network: `src.trained.Trained` has it.

    Attributes:
        network: in evaluation mode, with `embed`.
        recipe: how its images are prepared, and what their sides must be divisible by.
        device: where it runs.
    """

    network: nn.Cell
    recipe: Any
    device: Device


class Embedder:
    """Embeddings of whole pictures: the longer side is the preparation's, the aspect ratio is kept.

    The network runs without a graph, as nearly every picture has a shape of its own.

    Args:
        network: with `embed`, (N, 3, H, W) float32 -> (N, D); from now on in evaluation mode.
        preparation: gives the longer side, in pixels, and how pixels are computed and normalised.
        side_multiple: what both sides must be divisible by for this network.
        batch_size: most pictures that the network sees at once: neighbours of equal shape.
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
    def from_trained(cls, trained: TrainedNetwork, *, batch_size: int = 32) -> Self:
        """The embedder of a trained network, at the size of its evaluation."""
        recipe = trained.recipe
        how = {"batch_size": batch_size, "workers": recipe.config.workers}
        return cls(trained.network, recipe.preparation, side_multiple=recipe.side_multiple, **how)

    def embed(
        self, pictures: Iterable[tuple[Key, Read]], *, skip: Skip | None = None
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """Embeds any number of pictures; those of two batches at most are in memory.

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
        length = None
        batches = pictures_ahead(
            pictures,
            lambda item: self._normalise(item[1](self._plan)),
            batch_size=self.batch_size,
            workers=self.workers,
            skip=skip and (lambda item, error: skip(item[0], error)),
        )
        for items, images in batches:
            heartbeat.progress()
            embeddings = self._run(images)
            length = length or embeddings.shape[1]
            if embeddings.shape[1] != length:
                raise UserError(
                    f"{type(self.network).__name__} gives {length} and {embeddings.shape[1]} features for "
                    "pictures of two shapes; use the image size that it was trained with"
                )
            for (key, _), embedding in zip(items, embeddings, strict=True):
                if not np.isfinite(embedding).all():
                    raise UserError(
                        f"{key}: {type(self.network).__name__} answers with NaN or infinity; "
                        "its weights are damaged, or too large for float16 (amp_level O0)"
                    )
                yield key, embedding

    def _run(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, D) float32, rows of length 1 or 0."""
        with without_graph():
            embeddings = self.network.embed(ms.Tensor(images)).astype(ms.float32).asnumpy()
        norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
        return (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)
