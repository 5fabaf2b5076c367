# SPDX-License-Identifier: Apache-2.0
"""Running any number of prepared images through a model, whatever runs it and whatever batches it takes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..common.errors import UserError
from .card import ModelCard
from .exported import Exported
from .formats import ANY_BATCH

BATCH_SIZE = 32
"""Images a call, where a model takes any number and none is asked for."""

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Opened:
    """One model file, ready to run.

    Attributes:
        run: images of exactly `input_shape` and `input_type` -> logits (N, K) float32.
        input_shape: (N, 3, S, S), or (N, S, S, 3); N is ANY_BATCH where the model takes any number.
        input_type: float32 or uint8.
        output_shape: (N, K); None where the backend does not say before it has run.
        embed: the same images -> embeddings (N, D) float32; None: the file does not give them.
    """

    run: Run
    input_shape: tuple[int, ...]
    input_type: str
    output_shape: tuple[int, ...] | None = None
    embed: Run | None = None


class Predictor:
    """A model that takes any number of images, by calls of fixed batch sizes, or of any.

    Args:
        runs: for each batch size what runs that many images, (N, ...) as the card says -> (N, K) float32; for
            ANY_BATCH what runs any number.
        card: what the model takes, and its K class names.
        backend: a name of `formats.Format.backends`.
        device: where it runs: Ascend, GPU or CPU.
        batch_size: images a call, with ANY_BATCH.
        embeds: as `runs`, (N, ...) -> (N, D) float32; None: the model gives no embeddings.

    Attributes:
        batch_size: the largest.
        calls: batch size and seconds of every call for logits since the last `warm_up`.
    """

    def __init__(
        self,
        runs: Mapping[int, Run],
        *,
        card: ModelCard,
        backend: str = "mindspore",
        device: str = "CPU",
        batch_size: int = BATCH_SIZE,
        embeds: Mapping[int, Run] | None = None,
    ) -> None:
        if not runs or min(runs) < 0 or batch_size < 1:
            size = min(batch_size, min(runs, default=0))
            raise UserError(f"batch_size: {size} is not a batch; give 1 or more")
        self._runs, self._embeds = dict(sorted(runs.items())), dict(sorted((embeds or {}).items()))
        self.card, self.backend, self.device = card, backend, device
        self.batch_size = max(runs) or batch_size
        self.calls: list[tuple[int, float]] = []

    @classmethod
    def from_files(
        cls,
        exported: Exported,
        opened: Sequence[Opened],
        *,
        batch_size: int | None = None,
        backend: str,
        device: str,
    ) -> Self:
        """The predictor of an export, after checking that its card and its files belong together.

        Args:
            exported: the export.
            opened: its files, each ready to run.
            batch_size: the largest that is used; None for the largest there is, or BATCH_SIZE.

        Raises:
            UserError: they do not belong together, or no file takes such a batch.
        """
        card = exported.card
        for path, model in zip(exported.files, opened, strict=True):
            taken = model.input_type, model.input_shape[1:]
            classes = model.output_shape[1] if model.output_shape else len(card.class_names)
            if taken != (card.input_type, card.image_shape) or classes != len(card.class_names):
                raise UserError(
                    f"{exported.folder}: its card describes {card.input_type} images {card.image_shape} "
                    f"and {len(card.class_names)} classes, but {path.name} takes {model.input_type} "
                    f"{taken[1]} and gives {classes}; export the model again"
                )
        runs = {model.input_shape[0]: model.run for model in opened}
        embeds = {model.input_shape[0]: model.embed for model in opened if model.embed}
        how = {"card": card, "backend": backend, "device": device, "embeds": embeds}
        if batch_size is None:
            return cls(runs, **how)
        if ANY_BATCH in runs:
            return cls(runs, batch_size=batch_size, **how)
        if batch_size not in runs:
            sizes = ", ".join(map(str, sorted(runs)))
            raise UserError(
                f"batch_size: {batch_size} given, {exported.folder.name} was exported for {sizes}; "
                f"export with --export_batch_size {batch_size}, or give one of these"
            )
        return cls({size: run for size, run in runs.items() if size <= batch_size}, **how)

    @property
    def gives_embeddings(self) -> bool:
        """Whether `embeddings` can be asked for."""
        return bool(self._embeds)

    def warm_up(self) -> None:
        """Runs each batch size once, on zeros, and forgets the calls: the first ones compile.

        A model of any batch size gets one image.
        """
        for size in self._runs:
            images = np.zeros((size or 1, *self.card.image_shape), self.card.image_dtype)
            self._timed(size)(images)
        self.calls.clear()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Runs prepared images, each time the largest batch that they fill.

        What is left for the smallest batch is filled up with copies of the last image; a model of any batch
        size takes it as it is.

        Args:
            images: (N, ...) of the card's `image_shape` and `image_dtype`, N >= 0.

        Returns:
            float32 of shape (N, K).

        Raises:
            UserError: the images or the model's answer are not of the shape that the card says.
        """
        answers = self._in_batches({size: self._timed(size) for size in self._runs}, images)
        return np.concatenate([np.empty((0, len(self.card.class_names)), np.float32), *answers])

    def embeddings(self, images: np.ndarray) -> np.ndarray:
        """What the network's `embed` gives, (N, D) float32, not normalised, N >= 1; batches as `logits`.

        Raises:
            UserError: as `logits`, or the model gives no embeddings.
        """
        if not self._embeds:
            raise UserError(f"{self.card.model}: this export gives no embeddings; export to ONNX")
        return np.concatenate(list(self._in_batches(self._embeds, images)))

    def _in_batches(self, runs: Mapping[int, Run], images: np.ndarray) -> Iterator[np.ndarray]:
        """The answers of one batch after another, without those to what a batch was filled up with."""
        shape = self.card.image_shape
        if images.shape[1:] != shape:
            raise UserError(f"images of shape {images.shape}: {self.card.model} takes (N, {str(shape)[1:]}")
        images = np.ascontiguousarray(images, self.card.image_dtype)
        done = 0
        while done < len(images):
            left = len(images) - done
            key = max((size for size in runs if size <= left), default=min(runs))
            size = key or min(self.batch_size, left)
            batch = images[done : done + size]
            if len(batch) < size:
                batch = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            yield runs[key](batch)[:left]
            done += size

    def _timed(self, key: int) -> Run:
        """What runs batches of that size, with its time noted and the shape of its answer checked."""

        def run(batch: np.ndarray) -> np.ndarray:
            began = time.perf_counter()
            answer = self._runs[key](batch)
            self.calls.append((len(batch), time.perf_counter() - began))
            if answer.shape != (len(batch), len(self.card.class_names)):
                raise UserError(
                    f"{self.card.model}: answers {answer.shape} for {len(batch)} images and "
                    f"{len(self.card.class_names)} class names; it must give one logit a class"
                )
            return answer

        return run
