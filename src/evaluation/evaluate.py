"""The one loop over evaluation batches, and a classifier evaluated by it: each image once, over all ranks."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import mindspore as ms
import numpy as np

from ..common import heartbeat
from ..data.damage import damaged_in
from ..model_utils.device_adapter import without_graph
from ..parallel.collective import sum_over_ranks
from .metrics import Scores, Totals

Predict = Callable[[np.ndarray], np.ndarray]
Batch = tuple[np.ndarray, np.ndarray, int]
Between = Callable[[], object]


class EvaluationStopped(Exception):
    """An evaluation ended before its last batch because `between` said so, on some rank."""


class Answers(NamedTuple):
    """What a network says of one batch, without filler and damaged images.

    Attributes:
        indices: (B,) int64, the place of each image in the data set.
        images: (B, ...) as they were given to the network.
        labels: (B,) integers.
        outputs: (B, ...) float64.
        damaged: how many images of the batch could not be read.
    """

    indices: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    outputs: np.ndarray
    damaged: int


def as_function(
    network: Callable[[ms.Tensor], ms.Tensor], inputs: Callable | None = None, *, one_shape: bool = True
) -> Predict:
    """A network as a function of arrays: images as batches hold them -> its outputs.

    Args:
        network: a cell in evaluation mode, or what else takes and gives a tensor.
        inputs: the recipe's cell, which makes the network's float32 input of uint8 images, and leaves float32
            ones as they are; None where the network takes what batches hold.
        one_shape: false for images of many shapes, which run without a graph: each shape would compile one.
    """
    mode = contextlib.nullcontext if one_shape else without_graph

    def predict(images: np.ndarray) -> np.ndarray:
        with mode():
            tensor = ms.Tensor(images)
            return network(tensor if inputs is None else inputs(tensor)).asnumpy()

    return predict


def answers(
    predict: Predict, batches: Iterable[Batch], *, flip_tta: bool = False, between: Between | None = None
) -> Iterator[Answers]:
    """The outputs for each batch, while the launcher's watch is told of progress.

    Args:
        predict: images, float32 (B, C, H, W) or uint8 (B, H, W, C) -> outputs (B, ...).
        batches: yields (images, labels, valid). Only the first `valid` rows count; the rest fill the last
            batch up to its fixed size, and what they hold does not matter. Nor does what takes the place of
            images that its source could not read (`data.damage`).
        flip_tta: average the outputs of each image and of its mirror image (left-right).
        between: called before each batch; it may raise, or return true to end here.

    Raises:
        EvaluationStopped: `between` returned true.
        ValueError: `valid` exceeds the batch, or `predict` gives another number of rows.
    """
    first, damaged = getattr(batches, "start", 0), damaged_in(getattr(batches, "source", None))
    for batch, labels, valid in batches:
        heartbeat.progress()
        if between is not None and between():
            raise EvaluationStopped
        images = np.ascontiguousarray(batch, dtype=None if batch.dtype == np.uint8 else np.float32)
        if not 0 <= valid <= len(images):
            raise ValueError(f"valid is {valid} in a batch of {len(images)} images")
        outputs = np.array(predict(images), dtype=np.float64)
        if flip_tta:
            mirrored = images[:, :, ::-1] if images.dtype == np.uint8 else images[..., ::-1]
            outputs = (outputs + predict(np.ascontiguousarray(mirrored))) / 2
        if len(outputs) != len(images):
            raise ValueError(f"predict gave {len(outputs)} rows for {len(images)} images")
        indices = np.arange(first, first + valid)
        kept = slice(valid)
        if lost := [row for row in range(valid) if first + row in damaged]:
            kept = np.delete(np.arange(valid), lost)
        yield Answers(indices[kept], images[kept], np.asarray(labels)[kept], outputs[kept], len(lost))
        first += valid


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        index: the image's place in the data set.
        image: (C, H, W) float32 or (H, W, C) uint8, as it was given to `predict`.
        label: the true class.
        prediction: the class predicted.
        probability: softmax probability of the prediction, 0..1.
        loss: cross-entropy, nats.
    """

    index: int
    image: np.ndarray
    label: int
    prediction: int
    probability: float
    loss: float


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a data set gave.

    Attributes:
        metrics: see `Totals.result`; over all ranks.
        totals: the counts behind them; over all ranks.
        mistakes: the wrong predictions of this rank with the highest loss, highest first.
        damaged: images that could not be read and are in no figure; over all ranks.
    """

    metrics: dict[str, float]
    totals: Totals
    mistakes: list[Mistake]
    damaged: int = 0


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    flip_tta: bool = False,
    reduce: Callable[[np.ndarray], np.ndarray] | None = None,
    worst: int = 0,
    between: Between | None = None,
    each: Callable[[Answers, Scores], None] | None = None,
) -> Evaluation:
    """Evaluates a classifier on every image once; `answers` says what is not said here.

    Args:
        predict: gives logits (B, K).
        num_classes: K.
        reduce: adds a vector (n,) over ranks, int64 exactly; called twice after the last batch on every rank,
            with sums in float64 and counts in int64. None means a single rank.
        worst: how many mistakes to keep.
        between: ranks may call it unequally often, so it must not wait for the others. Where one of them
            returns true, that rank skips its batches that are left, and all raise after the sum over ranks.
        each: takes each batch's answers and scores.

    Raises:
        EvaluationStopped: `between` returned true, on this rank or another.
        UserError: no images on any rank, or classes and data do not agree (see `Totals.update`).
    """
    totals, damaged, stopped = Totals(num_classes), 0, False
    mistakes: list[Mistake] = []
    try:
        for batch in answers(predict, batches, flip_tta=flip_tta, between=between):
            scores = totals.update(batch.outputs, batch.labels)
            damaged += batch.damaged
            if worst > 0:
                mistakes = _keep_worst(mistakes, worst, scores, batch)
            if each is not None:
                each(batch, scores)
    except EvaluationStopped:
        stopped = True
    sums, counts = totals.vectors()
    counts = np.append(counts, (damaged, int(stopped)))
    if reduce is not None:
        sums, counts = reduce(sums), reduce(counts)
    *_, damaged, stopped = counts.tolist()
    if stopped:
        raise EvaluationStopped
    totals = Totals.from_vectors(num_classes, sums, counts[:-2])
    return Evaluation(totals.result(), totals, mistakes, damaged)


def evaluate_network(network, inputs, batches, *, num_classes: int, size: int = 1, **how) -> Evaluation:
    """`evaluate` for a network, which is left in evaluation mode; sums go over `size` ranks.

    Args:
        inputs: see `as_function`.
        batches: `EvalBatches` of this rank.
        how: flip_tta, worst, between and each, as `evaluate` takes them.
    """
    network.set_train(False)
    return evaluate(
        as_function(network, inputs, one_shape=batches.one_shape),
        batches,
        num_classes=num_classes,
        reduce=lambda vector: sum_over_ranks(vector, size=size),
        **how,
    )


def _keep_worst(kept: list[Mistake], worst: int, scores: Scores, batch: Answers) -> list[Mistake]:
    wrong = np.flatnonzero((scores.prediction >= 0) & (scores.prediction != batch.labels))
    highest = wrong[np.argsort(-scores.loss[wrong], kind="stable")][:worst]
    new = [
        Mistake(
            index=int(batch.indices[row]),
            image=batch.images[row].copy(),
            label=int(batch.labels[row]),
            prediction=int(scores.prediction[row]),
            probability=float(scores.probability[row]),
            loss=float(scores.loss[row]),
        )
        for row in highest
    ]
    return sorted(kept + new, key=lambda mistake: (-mistake.loss, mistake.index))[:worst]
