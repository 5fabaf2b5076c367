"""Running any number of prepared images through a model, whatever runs it and whatever batches it takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..common.errors import UserError
from .card import ModelCard
from .exported import Exported

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Opened:
    """One model file, ready to run.

    Attributes:
        run: images of exactly `input_shape` and `input_type` -> logits (N, K) float32.
        input_shape: (N, 3, S, S), or (N, S, S, 3).
        input_type: float32 or uint8.
        output_shape: (N, K); None where the backend does not say before it has run.
    """

    run: Run
    input_shape: tuple[int, ...]
    input_type: str
    output_shape: tuple[int, ...] | None = None


class Predictor:
    """A model that takes any number of images, by calls of fixed batch sizes.

    Args:
        runs: for each batch size what runs that many images, (N, ...) as the card says -> (N, K) float32.
        card: what the model takes, and its K class names.
        backend: mindspore or lite.
        device: where it runs: Ascend, GPU or CPU.

    Attributes:
        batch_size: the largest.
        calls: batch size and seconds of every call since the last `warm_up`.
    """

    def __init__(
        self, runs: Mapping[int, Run], *, card: ModelCard, backend: str = "mindspore", device: str = "CPU"
    ) -> None:
        if not runs or min(runs) < 1:
            raise UserError(f"batch_size: {min(runs, default=0)} is not a batch; give 1 or more")
        self._runs = dict(sorted(runs.items()))
        self.card, self.backend, self.device = card, backend, device
        self.batch_size = max(runs)
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
            batch_size: the largest that is used; None for the largest there is.

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
        if batch_size is not None:
            if batch_size not in runs:
                sizes = ", ".join(map(str, sorted(runs)))
                raise UserError(
                    f"batch_size: {batch_size} given, {exported.folder.name} was exported for {sizes}; "
                    f"export with --export_batch_size {batch_size}, or give one of these"
                )
            runs = {size: run for size, run in runs.items() if size <= batch_size}
        return cls(runs, card=card, backend=backend, device=device)

    def warm_up(self) -> None:
        """Runs each batch size once, on zeros, and forgets the calls: the first ones compile."""
        for size in self._runs:
            self._call(size, np.zeros((size, *self.card.image_shape), self.card.image_dtype))
        self.calls.clear()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Runs prepared images, each time the largest batch that they fill.

        What is left for the smallest batch is filled up with copies of the last image.

        Args:
            images: (N, ...) of the card's `image_shape` and `image_dtype`, N >= 0.

        Returns:
            float32 of shape (N, K).

        Raises:
            UserError: the images or the model's answer are not of the shape that the card says.
        """
        shape = self.card.image_shape
        if images.shape[1:] != shape:
            raise UserError(f"images of shape {images.shape}: {self.card.model} takes (N, {str(shape)[1:]}")
        logits = np.empty((len(images), len(self.card.class_names)), np.float32)
        done = 0
        while done < len(images):
            size = max((s for s in self._runs if s <= len(images) - done), default=min(self._runs))
            batch = np.ascontiguousarray(images[done : done + size], self.card.image_dtype)
            filler = np.repeat(batch[-1:], size - len(batch), axis=0)
            logits[done : done + len(batch)] = self._call(size, np.concatenate([batch, filler]))[: len(batch)]
            done += len(batch)
        return logits

    def _call(self, size: int, batch: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        answer = self._runs[size](batch)
        self.calls.append((size, time.perf_counter() - began))
        if answer.shape != (size, len(self.card.class_names)):
            raise UserError(
                f"{self.card.model}: answers {answer.shape} for {size} images and "
                f"{len(self.card.class_names)} class names; it must give one logit a class"
            )
        return answer
