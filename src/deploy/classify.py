# SPDX-License-Identifier: Apache-2.0
"""From pictures to classes, with how long it took and how many are right."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..data.read_ahead import pictures_ahead
from ..evaluation.metrics import METRICS, Totals
from ..model_utils.cpu import worker_count
from .examples import Example
from .predict import Predictor


@dataclass(frozen=True)
class Classified:
    """What was found.

    Attributes:
        results: {"file", "predictions": [{"class", "probability"}]} of each image that can be read, and its
            "label" where it is known.
        skipped: {"file", "reason"} of each that cannot.
        performance: see `classify`.
        accuracy: of the results "count", "top1", and above 5 classes "top5", in percent, and "top1_correct",
            "top5_correct" in images; None without labels.
    """

    results: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    performance: dict[str, Any]
    accuracy: dict[str, Any] | None


def classify(
    predictor: Predictor, examples: Iterable[Example], *, top: int = 5, workers: int = 0
) -> Classified:
    """Classifies images one batch at a time; those of three batches at most are in memory.

    A pool of threads reads and prepares the next batch while the model has one. The model is warmed up before
    the clock starts.

    Args:
        predictor: the model.
        examples: the images; all of them have a label, or none.
        top: classes an image (all, if there are fewer), the likeliest first, with probabilities by softmax
            over all classes in float64.
        workers: threads, as `read_ahead` takes them.

    Returns:
        results and skipped in the order of `examples`. The performance: "seconds" and "images_per_second"
        from the first file to the last answer; "preparation": "seconds" of all "threads" together and
        "milliseconds_per_image" to read and prepare it; "model": "seconds" and "images_per_second" of the
        calls alone, with the transfer to the device and back; "latency": for each batch size the number of
        "calls" and "median", "p90" and "p99" milliseconds a call.

    Raises:
        UserError: `top` is below 1, `workers` below 0, or the model's answer is not a number.
    """
    if top < 1:
        raise UserError(f"top: {top} classes cannot be shown; give 1 or more")
    if workers < 0:
        raise UserError(f"workers: {workers} threads cannot be started; give 0 or more")
    workers = workers or worker_count()
    card, results, skipped = predictor.card, [], []
    prepared: list[float] = []
    normalise = card.preparation.normalise
    totals, known = Totals(len(card.class_names)), False

    def prepare(example: Example) -> np.ndarray:
        start = time.perf_counter()
        image = example.read(card.preparation.plan_square)
        image = image if card.input_type == "uint8" else normalise(image)
        prepared.append(time.perf_counter() - start)
        return image

    batches = pictures_ahead(
        examples,
        prepare,
        batch_size=predictor.batch_size,
        workers=workers,
        skip=lambda example, error: skipped.append({"file": example.file, "reason": error.reason}),
    )
    predictor.warm_up()
    began = time.perf_counter()
    for batch, images in batches:
        logits = predictor.logits(images)
        for example, row in zip(batch, logits, strict=True):
            if not np.isfinite(row).all():
                raise UserError(
                    f"{example.file}: {card.model} answers with NaN or infinity; its weights are damaged"
                )
            found = {"file": example.file, "predictions": _likeliest(row, card.class_names, top)}
            labelled = {} if example.label is None else {"label": card.class_names[example.label]}
            results.append({**found, **labelled})
        if batch[0].label is not None:
            totals.update(logits, np.array([example.label for example in batch]))
            known = True
    seconds = time.perf_counter() - began
    return Classified(
        results,
        skipped,
        _performance(predictor, len(results), seconds, prepared, workers),
        _accuracy(totals) if known else None,
    )


def _likeliest(logits: np.ndarray, class_names: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    shifted = logits.astype(np.float64) - logits.max()
    probabilities = np.exp(shifted) / np.exp(shifted).sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return [{"class": class_names[k], "probability": float(probabilities[k])} for k in order]


def _accuracy(totals: Totals) -> dict[str, Any]:
    """Those metrics that are shares of images, in percent and in images."""
    share = 100 / totals.count if totals.count else float("nan")
    right = {name: int(total) for name, total in totals.sums.items() if METRICS[name].unit == "%"}
    shares = {name: share * count for name, count in right.items()}
    return {"count": totals.count, **shares, **{f"{name}_correct": count for name, count in right.items()}}


def _performance(
    predictor: Predictor, count: int, seconds: float, prepared: list[float], threads: int
) -> dict[str, Any]:
    by_size: dict[int, list[float]] = {}
    for size, took in predictor.calls:
        by_size.setdefault(size, []).append(1000 * took)
    in_model = sum(took for _, took in predictor.calls)
    return {
        "backend": predictor.backend,
        "device": predictor.device,
        "input_type": predictor.card.input_type,
        "images": count,
        "seconds": seconds,
        "images_per_second": count / seconds,
        "preparation": {
            "seconds": sum(prepared),
            "threads": threads,
            "milliseconds_per_image": 1000 * sum(prepared) / count if count else None,
        },
        "model": {"seconds": in_model, "images_per_second": count / in_model if in_model else None},
        "latency": [
            {"batch_size": size, "calls": len(times), **_percentiles(times)}
            for size, times in sorted(by_size.items())
        ],
    }


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    median, p90, p99 = np.percentile(milliseconds, (50, 90, 99)).tolist()
    return {"median": median, "p90": p90, "p99": p99}
