"""Top-1, top-5 and cross-entropy as exact sums: every image counts once, on any number of cards."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..common.errors import UserError

Predict = Callable[[np.ndarray], np.ndarray]
Batch = tuple[np.ndarray, np.ndarray, int]

_SCALARS = 4  # what stands before the confusion matrix in a vector: count, top1, top5, loss_sum


class Scores(NamedTuple):
    """What logits say about each image of a batch; every field has shape (B,).

    Attributes:
        loss: cross-entropy, nats.
        prediction: the class predicted, or -1 where the logits predict nothing.
        probability: softmax probability of the prediction.
        place: how many classes come before the true one, 0 where the prediction is right.
    """

    loss: np.ndarray
    prediction: np.ndarray
    probability: np.ndarray
    place: np.ndarray


def score(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores logits (B, K) against integer labels (B,), in float64.

    Of classes with equal logits the lower index comes first, so the prediction is numpy's argmax and no two
    runs break a tie differently. Where softmax is not defined (a NaN, a +inf, nothing but -inf) there is no
    prediction: it counts as wrong at every rank, with a loss of NaN.
    """
    logits = np.asarray(logits, dtype=np.float64)
    rows, classes = np.arange(len(logits)), np.arange(logits.shape[1])
    highest = logits.max(axis=1)
    defined = np.isfinite(highest)
    own = logits[rows, labels][:, None]
    before = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    best = logits.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        shifted = logits - highest[:, None]
        log_total = np.log(np.exp(shifted).sum(axis=1))
        return Scores(
            loss=log_total - shifted[rows, labels],
            prediction=np.where(defined, best, -1),
            probability=np.exp(shifted[rows, best] - log_total),
            place=np.where(defined, before.sum(axis=1), len(classes)),
        )


class Totals:
    """The sums behind the metrics. They add up over batches and over ranks; means would not.

    Attributes:
        count: images seen.
        top1: images whose class came first.
        top5: images whose class was among the first min(5, K).
        loss_sum: cross-entropy summed over images, nats.
        confusion: (K, K) int64, rows true, columns predicted. Images without a prediction are in no cell.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.count = 0
        self.top1 = 0
        self.top5 = 0
        self.loss_sum = 0.0
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, logits: np.ndarray, labels: np.ndarray) -> Scores:
        """Adds a batch: logits (B, K), integer labels (B,). Returns its scores image by image.

        Raises:
            UserError: the logits are not for K classes, or a label is not one of them.
            ValueError: logits and labels differ in number, or labels are not integers.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"logits must be (B, K) and labels (B,) integers, not {logits.shape} and "
                f"{labels.shape} {labels.dtype}"
            )
        if logits.shape[1] != self.num_classes:
            raise UserError(
                f"num_classes: the network predicts {logits.shape[1]} classes, {self.num_classes} are "
                "expected; evaluate with the num_classes of the checkpoint"
            )
        strange = labels[(labels < 0) | (labels >= self.num_classes)]
        if strange.size:
            raise UserError(
                f"num_classes: label {strange[0]} is outside 0..{self.num_classes - 1}; set num_classes to "
                "that of the data set"
            )
        scores = score(logits, labels)
        self.count += len(labels)
        self.top1 += int((scores.place < 1).sum())
        self.top5 += int((scores.place < min(5, self.num_classes)).sum())
        self.loss_sum += float(scores.loss.sum())
        predicted = scores.prediction >= 0
        np.add.at(self.confusion, (labels[predicted], scores.prediction[predicted]), 1)
        return scores

    def vector(self) -> np.ndarray:
        """All sums as one float64 array (4 + K*K,), to be added over ranks."""
        return np.concatenate(
            [np.array([self.count, self.top1, self.top5, self.loss_sum]), self.confusion.ravel()]
        )

    @classmethod
    def from_vector(cls, num_classes: int, vector: np.ndarray) -> "Totals":
        """The inverse of `vector`, also for a sum of vectors.

        Raises:
            ValueError: the size is wrong, or the counts were rounded on the way (the diagonal of the
                confusion matrix no longer adds up to top1), as a sum in float32 does.
        """
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (_SCALARS + num_classes**2,):
            raise ValueError(f"{vector.shape} is not the shape of a vector for {num_classes} classes")
        totals = cls(num_classes)
        totals.count, totals.top1, totals.top5 = (int(value) for value in vector[:3])
        totals.loss_sum = float(vector[3])
        totals.confusion += vector[_SCALARS:].astype(np.int64).reshape(num_classes, num_classes)
        if np.trace(totals.confusion) != totals.top1:
            raise ValueError(
                f"counts were not added exactly: the confusion matrix has {np.trace(totals.confusion)} right "
                f"images, top1 is {totals.top1}"
            )
        return totals

    def result(self) -> dict[str, float]:
        """The metrics: `top1` and `top5` in percent, `loss` in nats an image, `count` in images.

        Raises:
            UserError: no image was counted.
        """
        if not self.count:
            raise UserError("no images to evaluate; check that data_path holds the evaluation split")
        return {
            "top1": 100 * self.top1 / self.count,
            "top5": 100 * self.top5 / self.count,
            "loss": self.loss_sum / self.count,
            "count": self.count,
        }


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        index: the image's place in the order in which this rank evaluated.
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
        confusion: (K, K) int64, rows true, columns predicted; over all ranks.
        mistakes: the wrong predictions of this rank with the highest loss, highest first.
    """

    metrics: dict[str, float]
    confusion: np.ndarray
    mistakes: list[Mistake]


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    flip_tta: bool = False,
    reduce: Callable[[np.ndarray], np.ndarray] | None = None,
    worst: int = 0,
) -> Evaluation:
    """Evaluates a classifier on every image once.

    Args:
        predict: images, float32 (B, C, H, W) or uint8 (B, H, W, C) -> logits (B, K).
        batches: yields (images, labels, valid). Only the first `valid` rows count; the rest fill the last
            batch up to its fixed size, and what they hold does not matter.
        num_classes: K.
        flip_tta: average the logits of each image and of its mirror image (left-right).
        reduce: adds a float64 vector (4 + K*K,) over ranks; called once, after the last batch, on every
            rank. It must be exact for integers up to 2**53. An all-reduce in float32 is exact only up to
            2**24 (16.8 million): split the numbers before one. None means a single rank.
        worst: how many mistakes to keep.

    Raises:
        UserError: no images on any rank, or classes and data do not agree (see `Totals.update`).
        ValueError: `valid` exceeds the batch, or `predict` gives another number of rows.
    """
    totals = Totals(num_classes)
    mistakes: list[Mistake] = []
    seen = 0
    for batch, labels, valid in batches:
        images = np.ascontiguousarray(batch, dtype=None if batch.dtype == np.uint8 else np.float32)
        if not 0 <= valid <= len(images):
            raise ValueError(f"valid is {valid} in a batch of {len(images)} images")
        logits = np.array(predict(images), dtype=np.float64)
        if flip_tta:
            mirrored = images[:, :, ::-1] if images.dtype == np.uint8 else images[..., ::-1]
            logits = (logits + predict(np.ascontiguousarray(mirrored))) / 2
        if len(logits) != len(images):
            raise ValueError(f"predict gave {len(logits)} rows of logits for {len(images)} images")
        labels = np.asarray(labels)[:valid]
        scores = totals.update(logits[:valid], labels)
        if worst > 0:
            mistakes = _keep_worst(mistakes, worst, scores, images, labels, seen)
        seen += valid
    if reduce is not None:
        totals = Totals.from_vector(num_classes, reduce(totals.vector()))
    return Evaluation(metrics=totals.result(), confusion=totals.confusion, mistakes=mistakes)


def _keep_worst(
    kept: list[Mistake], worst: int, scores: Scores, images: np.ndarray, labels: np.ndarray, first_index: int
) -> list[Mistake]:
    wrong = np.flatnonzero((scores.prediction >= 0) & (scores.prediction != labels))
    highest = wrong[np.argsort(-scores.loss[wrong], kind="stable")][:worst]
    new = [
        Mistake(
            index=first_index + int(row),
            image=images[row].copy(),
            label=int(labels[row]),
            prediction=int(scores.prediction[row]),
            probability=float(scores.probability[row]),
            loss=float(scores.loss[row]),
        )
        for row in highest
    ]
    return sorted(kept + new, key=lambda mistake: (-mistake.loss, mistake.index))[:worst]


def per_class_recall(confusion: np.ndarray) -> np.ndarray:
    """Share of each true class that was predicted right, in percent: (K, K) counts -> (K,) float64.

    NaN for a class without images.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    images = confusion.sum(axis=1)
    return np.divide(100 * confusion.diagonal(), images, out=np.full(len(images), np.nan), where=images > 0)
