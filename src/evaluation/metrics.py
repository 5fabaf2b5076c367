# SPDX-License-Identifier: Apache-2.0
"""What is measured of a classifier: exact sums over images, and the figures made of them.

A figure is added by one entry in METRICS: records, logs, tables, JSON and the choices of the key
`best_metric` follow. MindSpore is not imported here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..common.errors import UserError
from .calibration import BINS, Calibration

CONFUSION_CLASSES = 200  # above it counts by class are kept, not a matrix of its square
SMALL = 1000  # images; below it top-1 is given with its interval


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


@dataclass(frozen=True)
class Metric:
    """One figure: the mean over images of `of_image`, or else `of_classes` of the recall of each class.

    Attributes:
        title: its name for people.
        unit: "%", of a share, or another one.
        of_image: a batch's scores -> (B,) numbers or booleans.
        of_classes: (K,) recalls in percent, NaN for a class without images -> the figure.
        higher_is_better: whether the best network has the highest figure.
        least_classes: with fewer classes it says nothing, and is left out.
    """

    title: str
    unit: str
    of_image: Callable[[Scores], np.ndarray] | None = None
    of_classes: Callable[[np.ndarray], float] | None = None
    higher_is_better: bool = True
    least_classes: int = 1

    def text(self, value: float) -> str:
        """`78.30 %`, `0.6234`."""
        return f"{value:.2f} %" if self.unit == "%" else f"{value:.4f}"


METRICS = {
    "top1": Metric("top-1", "%", of_image=lambda scores: scores.place < 1),
    "top5": Metric("top-5", "%", of_image=lambda scores: scores.place < 5, least_classes=6),
    "loss": Metric("loss", "nats", of_image=lambda scores: scores.loss, higher_is_better=False),
}


def metrics_of(num_classes: int) -> dict[str, Metric]:
    """The metrics that say something of so many classes, by name."""
    return {name: metric for name, metric in METRICS.items() if num_classes >= metric.least_classes}


def check_metric(name: str, num_classes: int) -> None:
    """Refuses a `best_metric` that the data does not have.

    Raises:
        UserError: it says nothing of so few classes.
    """
    if name not in (known := metrics_of(num_classes)):
        raise UserError(
            f"best_metric: {name} given, allowed with {num_classes} classes: {', '.join(known)}; "
            f"{METRICS[name].title} says nothing there"
        )


def is_better(name: str, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Whether by metric `name` the figures `new` are better than `old`."""
    return new[name] > old[name] if METRICS[name].higher_is_better else new[name] < old[name]


def of_plain_view(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures with those of the plain view in place of those of several views, where there are both.

    Evaluations of one view and of several are compared by them: `top1` becomes what is in `top1_plain`, and
    of a record `eval_top1` what is in `eval_top1_plain`.
    """
    return {name: figures.get(f"{name}_plain", value) for name, value in figures.items()}


class Totals:
    """The sums behind the metrics. They add up over batches and over ranks; means would not.

    Attributes:
        num_classes: K.
        sums: by metric with `of_image`, its sum over images.
        images: (K,) int64, images of each class.
        right: (K,) int64, those of them that are predicted right.
        confusion: (K, K) int64, rows true, columns predicted; None above CONFUSION_CLASSES. Images without a
            prediction are in no cell.
        calibration: how often which probabilities were right.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._metrics = metrics_of(num_classes)
        self.sums = {name: 0.0 for name, metric in self._metrics.items() if metric.of_image}
        self.images = np.zeros(num_classes, np.int64)
        self.right = np.zeros(num_classes, np.int64)
        small = num_classes <= CONFUSION_CLASSES
        self.confusion = np.zeros((num_classes, num_classes), np.int64) if small else None
        self.calibration = Calibration()

    @property
    def count(self) -> int:
        """Images seen."""
        return int(self.images.sum())

    @property
    def recall(self) -> np.ndarray:
        """(K,) float64: share of each class that was predicted right, in percent; NaN without images."""
        return np.divide(
            100 * self.right, self.images, out=np.full(self.num_classes, np.nan), where=self.images > 0
        )

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
        for name in self.sums:
            self.sums[name] += float(self._metrics[name].of_image(scores).sum())
        self.images += np.bincount(labels, minlength=self.num_classes)
        self.right += np.bincount(labels[scores.prediction == labels], minlength=self.num_classes)
        predicted = scores.prediction >= 0
        self.calibration.update(scores.probability[predicted], (scores.prediction == labels)[predicted])
        if self.confusion is not None:
            np.add.at(self.confusion, (labels[predicted], scores.prediction[predicted]), 1)
        return scores

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """All sums (m,) float64 and all counts (n,) int64, to be added over ranks."""
        matrix = [] if self.confusion is None else [self.confusion.ravel()]
        of_bins = self.calibration
        sums = np.concatenate([list(self.sums.values()), of_bins.probability])
        return sums, np.concatenate([self.images, self.right, of_bins.images, of_bins.right, *matrix])

    @classmethod
    def from_vectors(cls, num_classes: int, sums: np.ndarray, counts: np.ndarray) -> "Totals":
        """The inverse of `vectors`, also for sums of them.

        Raises:
            ValueError: a size is wrong, or the counts were rounded on the way (those of the classes no longer
                add up to the sum of top1), as a sum in float32 does.
        """
        totals = cls(num_classes)
        shapes = tuple(vector.shape for vector in totals.vectors())
        if (sums.shape, counts.shape) != shapes:
            raise ValueError(f"{sums.shape}, {counts.shape} are not the shapes for {num_classes} classes")
        sums, probability = np.split(sums, [-BINS])
        totals.sums = dict(zip(totals.sums, sums.tolist(), strict=True))
        ends = np.cumsum([num_classes, num_classes, BINS, BINS])
        totals.images, totals.right, images, right, confusion = np.split(counts, ends)
        totals.calibration = Calibration(images, right, probability)
        if totals.confusion is not None:
            totals.confusion = confusion.reshape(num_classes, num_classes)
        if totals.right.sum() != totals.sums["top1"]:
            raise ValueError(
                f"counts were not added exactly: the classes have {totals.right.sum()} right images, top1 is "
                f"{totals.sums['top1']:.0f}"
            )
        return totals

    def result(self) -> dict[str, float]:
        """The metrics by name: shares in percent, `loss` in nats an image; and `count` in images.

        Raises:
            UserError: no image was counted.
        """
        if not self.count:
            raise UserError("no images to evaluate; check that data_path holds the evaluation split")
        figures = {}
        for name, metric in self._metrics.items():
            if metric.of_classes:
                figures[name] = float(metric.of_classes(self.recall))
            else:
                scale = 100 if metric.unit == "%" else 1
                figures[name] = scale * self.sums[name] / self.count
        return {**figures, "count": self.count}


def interval(share: float, count: int, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent trials, in percent as the share is.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927): right for
    few trials and for shares near 0 and 100 too.
    """
    p = share / 100
    centre = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 100 / (1 + z * z / count)
    return max(0.0, scale * (centre - half)), min(100.0, scale * (centre + half))


def in_words(figures: Mapping[str, float]) -> str:
    """`top-1 78.30 %  top-5 98.10 %  loss 0.6234  (10000 images)`; of few images with top-1's interval.

    Of several views `top-1 79.10 % (plain view 78.30 %)`.
    """
    known = [(METRICS[name], value) for name, value in figures.items() if name in METRICS]
    parts = [f"{metric.title} {metric.text(value)}" for metric, value in known]
    count = figures["count"]
    if count < SMALL:
        low, high = interval(figures["top1"], count)
        parts[0] += f" (95 % interval {low:.1f} to {high:.1f})"
    if "top1_plain" in figures:
        parts[0] += f" (plain view {METRICS['top1'].text(figures['top1_plain'])})"
    return "  ".join([*parts, f"({count} images)"])


def warning_of(count: int) -> str | None:
    """One sentence where a test set is so small that its figures say little; None where it is not."""
    if count >= SMALL:
        return None
    low, high = interval(50, count)
    return (
        f"the test set has {count} images: top-1 is uncertain by up to {(high - low) / 2:.0f} points either "
        "way; compare networks on more images, or over several seeds"
    )
