"""Classifying images: one predictor for every backend, and its answers as text or JSON."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import mindspore as ms
import numpy as np
from mindspore import nn

from src.data.decode import UnreadableImage
from src.deploy.card import ModelCard, card_path
from src.deploy.images import load_image, preprocess
from src.deploy.mindir import open_mindir
from src.model_utils.errors import UserError


class Predictor:
    """Runs any number of prepared images through a model that takes exactly `batch_size` at once.

    Args:
        run: the backend, float32 (batch_size, 3, S, S) -> (batch_size, K).
        card: S and the K class names.
        batch_size: images a call of `run`.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], *, card: ModelCard, batch_size: int) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size} is not a batch; give 1 or more")
        self._run = run
        self.card = card
        self.batch_size = batch_size

    @classmethod
    def from_mindir(cls, path: str | os.PathLike) -> Self:
        """Opens an exported file with the card beside it; the batch size is the one it was exported with.

        Raises:
            UserError: the file or its card is missing or damaged, or they do not belong together.
        """
        model = open_mindir(path)
        card = ModelCard.load(card_path(path))
        batch_size, *image = model.input_shape
        classes = model.output_shape[1]
        if image != [3, card.image_size, card.image_size] or classes != len(card.class_names):
            raise UserError(
                f"{card_path(path)}: describes images of {card.image_size} pixels and "
                f"{len(card.class_names)} classes, but {path} takes {tuple(image)} and gives {classes}; "
                "export the model again"
            )
        return cls(_as_function(model.graph), card=card, batch_size=batch_size)

    @classmethod
    def from_network(cls, network: nn.Cell, card: ModelCard, batch_size: int) -> Self:
        """Uses a network directly, from now on in evaluation mode."""
        network.set_train(False)
        return cls(_as_function(network), card=card, batch_size=batch_size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Runs prepared images; the last batch is filled up with copies of its last image.

        Args:
            images: float32 of shape (N, 3, S, S), N >= 0.

        Returns:
            float32 of shape (N, K).

        Raises:
            UserError: the images or the model's answer are not of the shape that the card says.
        """
        expected = (3, self.card.image_size, self.card.image_size)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise UserError(
                f"images of shape {images.shape}: {self.card.model} takes (N, {str(expected)[1:]}"
            )
        classes = len(self.card.class_names)
        logits = np.empty((len(images), classes), np.float32)
        for start in range(0, len(images), self.batch_size):
            batch = np.ascontiguousarray(images[start : start + self.batch_size], np.float32)
            filler = np.repeat(batch[-1:], self.batch_size - len(batch), axis=0)
            answer = self._run(np.concatenate([batch, filler]))
            if answer.shape != (self.batch_size, classes):
                raise UserError(
                    f"{self.card.model}: answers {answer.shape} for {self.batch_size} images and "
                    f"{classes} class names; it must give one logit a class"
                )
            logits[start : start + len(batch)] = answer[: len(batch)]
        return logits


def classify(
    predictor: Predictor, card: ModelCard, paths: Iterable[str | os.PathLike], top: int = 5
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Classifies image files one batch at a time; only one batch of images is in memory.

    Returns:
        (results, skipped), each in the order of `paths`. A result is {"file", "predictions": [{"class",
        "probability"}]}: the `top` classes (all, if there are fewer), the likeliest first, probabilities by
        softmax over all classes in float64. A skipped file is {"file", "reason"}.

    Raises:
        UserError: `top` is below 1, or the model's answer is not a number.
    """
    if top < 1:
        raise UserError(f"top: {top} classes cannot be shown; give 1 or more")
    results: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    readable = _readable(paths, card, skipped)
    while batch := list(itertools.islice(readable, predictor.batch_size)):
        files, images = zip(*batch, strict=True)
        for file, logits in zip(files, predictor.logits(np.stack(images)), strict=True):
            if not np.isfinite(logits).all():
                raise UserError(f"{file}: {card.model} answers with NaN or infinity; its weights are damaged")
            results.append({"file": file, "predictions": _likeliest(logits, card.class_names, top)})
    return results, skipped


def render_text(results: list[dict[str, Any]], skipped: list[dict[str, str]]) -> str:
    """What `classify` found, for a terminal: a line a file, a line a class, then the skipped files."""
    lines = []
    for result in results:
        lines.append(result["file"])
        lines += [
            f"  {100 * found['probability']:6.2f} %  {found['class']}" for found in result["predictions"]
        ]
    lines += [f"skipped {file['file']}: {file['reason']}" for file in skipped]
    # A file name need not be valid UTF-8; a terminal's must be.
    return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")


def render_json(results: list[dict[str, Any]], skipped: list[dict[str, str]]) -> str:
    """What `classify` found, as one line of JSON: {"results": [...], "skipped": [...]}."""
    return json.dumps({"results": results, "skipped": skipped})


def _as_function(cell: nn.Cell) -> Callable[[np.ndarray], np.ndarray]:
    def run(batch: np.ndarray) -> np.ndarray:
        output = cell(ms.Tensor(batch))
        if not isinstance(output, ms.Tensor):
            raise UserError(f"{type(cell).__name__}: gives {type(output).__name__}, not one tensor of logits")
        return output.astype(ms.float32).asnumpy()

    return run


def _readable(
    paths: Iterable[str | os.PathLike], card: ModelCard, skipped: list[dict[str, str]]
) -> Iterator[tuple[str, np.ndarray]]:
    for path in paths:
        try:
            yield str(path), preprocess(load_image(path), card)
        except UnreadableImage as error:
            skipped.append({"file": str(path), "reason": error.reason})


def _likeliest(logits: np.ndarray, class_names: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    shifted = logits.astype(np.float64) - logits.max()
    probabilities = np.exp(shifted) / np.exp(shifted).sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return [{"class": class_names[k], "probability": float(probabilities[k])} for k in order]
