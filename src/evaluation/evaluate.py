# SPDX-License-Identifier: Apache-2.0
"""The one loop over evaluation batches, and a classifier evaluated by it: each image once, over all ranks."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import mindspore as ms
import numpy as np

from ..common import heartbeat
from ..data.batches import EvalBatches
from ..data.damage import damaged_in
from ..model_utils.device_adapter import without_graph
from ..parallel.collective import sum_over_ranks
from .metrics import METRICS, Scores, Totals
from .views import TTA, confidence, of_further_views

Predict = Callable[[np.ndarray], np.ndarray]
Batch = tuple[np.ndarray, np.ndarray, int]
Between = Callable[[], object]
Reduce = Callable[[np.ndarray], np.ndarray]

_CERTAIN = 1 << 46  # a probability of 1 as an integer: exact sums over ranks are below 2^48


class EvaluationStopped(Exception):
    """An evaluation ended before its last batch because `between` said so, on some rank."""


class Answers(NamedTuple):
    """What a network says of one batch, without filler and damaged images.

    Attributes:
        indices: (B,) int64, the place of each image in the data set.
        images: (B, ...) as they were given to the network; None where they were given back before their
            outputs were known.
        labels: (B,) integers.
        outputs: (B, ...) float64; of several views their weighted mean.
        plain: (B, ...) float64, the outputs for the images as they are; `outputs` itself without other views.
        damaged: how many images of the batch could not be read.
    """

    indices: np.ndarray
    images: np.ndarray | None
    labels: np.ndarray
    outputs: np.ndarray
    plain: np.ndarray
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
    predict: Predict, batches: Iterable[Batch], *, tta: str = "none", between: Between | None = None
) -> Iterator[Answers]:
    """The outputs for each batch, while the launcher's watch is told of progress.

    Args:
        predict: images, float32 (B, C, H, W) or uint8 (B, H, W, C) -> outputs (B, ...).
        batches: yields (images, labels, valid). Only the first `valid` rows count; the rest fill the last
            batch up to its fixed size, and what they hold does not matter. Nor does what takes the place of
            images that its source could not read (`data.damage`).
        tta: which views of each image are averaged, a name of `views.TTA`.
        between: called before each batch; it may raise, or return true to end here.

    Raises:
        EvaluationStopped: `between` returned true.
        ValueError: `valid` exceeds the batch, or `predict` gives another number of rows.
    """
    numbers, done = getattr(batches, "numbers", None), 0
    damaged, further = damaged_in(getattr(batches, "source", None)), of_further_views(predict, tta)
    for batch, labels, valid in batches:
        heartbeat.progress()
        if between is not None and between():
            raise EvaluationStopped
        images = np.ascontiguousarray(batch, dtype=None if batch.dtype == np.uint8 else np.float32)
        if not 0 <= valid <= len(images):
            raise ValueError(f"valid is {valid} in a batch of {len(images)} images")
        outputs = plain = np.array(predict(images), dtype=np.float64)
        if len(plain) != len(images):
            raise ValueError(f"predict gave {len(plain)} rows for {len(images)} images")
        if further is not None:
            outputs = TTA[tta][0].weight * plain + further(images)
        indices = np.arange(done, done + valid) if numbers is None else numbers[done : done + valid]
        lost = np.flatnonzero([index in damaged for index in indices.tolist()])
        kept = np.delete(np.arange(valid), lost) if len(lost) else slice(valid)
        yield Answers(
            indices[kept], images[kept], np.asarray(labels)[kept], outputs[kept], plain[kept], len(lost)
        )
        done += valid


def answers_twice(
    predict: Predict,
    batches: EvalBatches,
    *,
    tta: str,
    share: float,
    reduce: Reduce,
    between: Between | None = None,
) -> Iterator[Answers]:
    """`answers` that look again, in all views, at the images whose plain view is classified least surely.

    They are the `share` of all images, over all ranks, with the lowest softmax probability of the prediction;
    of equal ones those that come first. What is chosen therefore depends neither on the batches nor on the
    ranks. The logits of all images of this rank are kept meanwhile, 8 bytes each, but no image.

    Args:
        predict: gives logits (B, K).
        share: 0..1; of the number of images, rounded.
        reduce: see `evaluate`; called once, before the first answers are given.
    """
    first, stopped = [], False
    try:
        for batch in answers(predict, batches, between=between):
            first.append(batch._replace(images=None))
    except EvaluationStopped:
        stopped = True
    certainty = np.zeros(len(batches.source.labels), np.int64)  # 0: the image is damaged, or another rank's
    for batch in first:
        certainty[batch.indices] = 1 + np.rint(confidence(batch.plain) * _CERTAIN)
    certainty = reduce(certainty)
    if stopped:
        raise EvaluationStopped
    there = np.flatnonzero(certainty)
    order = np.argsort(certainty[there], kind="stable")
    chosen = np.zeros(len(certainty), bool)
    chosen[there[order[: round(share * len(there))]]] = True
    again = batches.of([index for batch in first for index in batch.indices[chosen[batch.indices]]])
    further = {}
    for batch in answers(of_further_views(predict, tta), again, between=between):
        further.update(zip(batch.indices.tolist(), batch.outputs, strict=True))
    for batch in first:
        outputs = batch.plain.copy()
        for row, index in enumerate(batch.indices.tolist()):
            if index in further:
                outputs[row] = TTA[tta][0].weight * batch.plain[row] + further[index]
        yield batch._replace(outputs=outputs)


@dataclass(frozen=True)
class Example:
    """One image with what is predicted of it.

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
    """What one evaluation of a data set gave.

    Attributes:
        metrics: see `Totals.result`; over all ranks. Of several views also the metrics of the plain one, as
            `top1_plain` and so on.
        totals: the counts behind them; over all ranks.
        mistakes: the wrong predictions of this rank with the highest loss, highest first.
        surest: the right predictions of this rank with the lowest loss, lowest first.
        damaged: images that could not be read and are in no figure; over all ranks.
    """

    metrics: dict[str, float]
    totals: Totals
    mistakes: list[Example]
    damaged: int = 0
    surest: list[Example] = field(default_factory=list)


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    tta: str = "none",
    tta_share: float = 1.0,
    reduce: Reduce | None = None,
    worst: int = 0,
    best: int = 0,
    between: Between | None = None,
    each: Callable[[Answers, Scores], None] | None = None,
) -> Evaluation:
    """Evaluates a classifier on every image once; `answers` says what is not said here.

    Args:
        predict: gives logits (B, K).
        batches: `EvalBatches`, where `tta_share` is below 1.
        num_classes: K.
        tta_share: which share of the images is seen in all views, see `answers_twice`.
        reduce: adds a vector (n,) over ranks, int64 exactly; called twice after the last batch on every rank,
            with sums in float64 and counts in int64, and before in `answers_twice`. None: a single rank.
        worst: how many mistakes to keep.
        best: how many of the right predictions that are surest.
        between: ranks may call it unequally often, so it must not wait for the others. Where one of them
            returns true, that rank skips its batches that are left, and all raise after the sum over ranks.
        each: takes each batch's answers and scores.

    Raises:
        EvaluationStopped: `between` returned true, on this rank or another.
        UserError: no images on any rank, or classes and data do not agree (see `Totals.update`).
    """
    reduce = reduce or (lambda vector: vector)
    how = {"tta": tta, "between": between}
    if tta_share == 1:
        said = answers(predict, batches, **how)
    else:
        said = answers_twice(predict, batches, share=tta_share, reduce=reduce, **how)
    totals, plain = Totals(num_classes), [Totals(num_classes)] if len(TTA[tta]) > 1 else []
    damaged, stopped = 0, False
    mistakes: list[Example] = []
    surest: list[Example] = []
    try:
        for batch in said:
            scores = totals.update(batch.outputs, batch.labels)
            for other in plain:
                other.update(batch.plain, batch.labels)
            damaged += batch.damaged
            mistakes = _keep(mistakes, worst, scores, batch, right=False)
            surest = _keep(surest, best, scores, batch, right=True)
            if each is not None:
                each(batch, scores)
    except EvaluationStopped:
        stopped = True
    (totals, *plain), (damaged, stopped) = _over_ranks([totals, *plain], (damaged, int(stopped)), reduce)
    if stopped:
        raise EvaluationStopped
    metrics = totals.result()
    for other in plain:
        metrics |= {f"{name}_plain": value for name, value in other.result().items() if name in METRICS}
    if tta_share != 1:
        mistakes, surest = _with_images(mistakes, batches), _with_images(surest, batches)
    return Evaluation(metrics, totals, mistakes, damaged, surest)


def _over_ranks(
    totals: list[Totals], counts: tuple[int, ...], reduce: Reduce
) -> tuple[list[Totals], list[int]]:
    """Totals of equally many classes, and further counts, added over the ranks in two messages."""
    parts = [of_one.vectors() for of_one in totals]
    sums = reduce(np.concatenate([sums for sums, _ in parts]))
    everything = reduce(np.concatenate([*(numbers for _, numbers in parts), counts]))
    numbers, counts = np.split(everything, [-len(counts)])
    parts = zip(np.split(sums, len(totals)), np.split(numbers, len(totals)), strict=True)
    return [Totals.from_vectors(totals[0].num_classes, *part) for part in parts], counts.tolist()


def evaluate_network(network, inputs, batches, *, num_classes: int, size: int = 1, **how) -> Evaluation:
    """`evaluate` for a network, which is left in evaluation mode; sums go over `size` ranks.

    Args:
        inputs: see `as_function`.
        batches: `EvalBatches` of this rank.
        how: tta, tta_share, worst, best, between and each, as `evaluate` takes them.
    """
    network.set_train(False)
    return evaluate(
        as_function(network, inputs, one_shape=batches.one_shape),
        batches,
        num_classes=num_classes,
        reduce=lambda vector: sum_over_ranks(vector, size=size),
        **how,
    )


def _keep(kept: list[Example], most: int, scores: Scores, batch: Answers, *, right: bool) -> list[Example]:
    """The best of those kept and of the batch: right predictions with the lowest loss, or wrong, highest."""
    if not most:
        return kept
    sign, is_right = 1 if right else -1, scores.prediction == batch.labels
    rows = np.flatnonzero(is_right if right else ~is_right & (scores.prediction >= 0))
    first = rows[np.argsort(sign * scores.loss[rows], kind="stable")][:most]
    new = [
        Example(
            index=int(batch.indices[row]),
            image=None if batch.images is None else batch.images[row].copy(),
            label=int(batch.labels[row]),
            prediction=int(scores.prediction[row]),
            probability=float(scores.probability[row]),
            loss=float(scores.loss[row]),
        )
        for row in first
    ]
    return sorted(kept + new, key=lambda example: (sign * example.loss, example.index))[:most]


def _with_images(examples: list[Example], batches: EvalBatches) -> list[Example]:
    """The examples with their images, which are read once more."""
    read = batches.of([example.index for example in examples])
    images = (image for batch, _, valid in read for image in batch[:valid])
    return [replace(example, image=image) for example, image in zip(examples, images, strict=True)]
