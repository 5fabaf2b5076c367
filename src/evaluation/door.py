# SPDX-License-Identifier: Apache-2.0
"""What eval.py does with a classifier: evaluates it, and shows the figures to people and programs."""

import argparse
import contextlib
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.table import table
from ..data.sources import SPLITS, facts_of
from .evaluate import Evaluation, evaluate_network
from .metrics import METRICS, Totals, interval, warning_of
from .pictures import WORST, write_pictures
from .predictions import predictions_file

_SHOWN = 5  # classes of the lowest recall


def evaluate_from_flags(trained: Any, flags: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Evaluates all test images and writes the files that are asked for.

    Of class folders that the network was not trained on, all images are test images.

    Args:
        trained: a `src.trained.Trained`.
        flags: predictions, a CSV file, and pictures, a folder; None: not asked for.

    Returns:
        the table for people, and the figures for JSON.

    Raises:
        UserError: predictions are asked of several ranks, the data has none of the network's classes, an
            image is damaged, or a file cannot be written.
    """
    device, config = trained.device, trained.recipe.config
    if flags.predictions and device.size > 1:
        raise UserError(
            f"--predictions: {flags.predictions} given with {device.size} processes, allowed: with one"
        )
    recipe = evaluated_recipe(trained)
    class_names = recipe.source("test").class_names
    batches = recipe.eval_batches(rank=device.rank, size=device.size)
    named = {"class_names": batches.class_names, "name_of": batches.source.name}
    with contextlib.ExitStack() as stack:
        each = flags.predictions and stack.enter_context(predictions_file(flags.predictions, **named))
        evaluation = evaluate_network(
            trained.network,
            trained.recipe.inputs(),
            batches,
            num_classes=len(class_names),
            tta=config.tta,
            tta_share=config.tta_share,
            size=device.size,
            worst=WORST if flags.pictures else 0,
            each=each or None,
        )
    if flags.pictures and device.rank == 0:
        of = f"{trained.checkpoint.path.name}, {weights_in_words(trained)}"
        how = {"mean": config.image_mean, "std": config.image_std, "of": of, **named}
        write_pictures(evaluation, flags.pictures, **how)
    count = evaluation.metrics["count"]
    figures = {
        "tta": config.tta,
        "tta_share": config.tta_share,
        **evaluation.metrics,
        "classes": int(np.count_nonzero(evaluation.totals.images)),
        "damaged_images": evaluation.damaged,
        "top1_interval": list(interval(evaluation.metrics["top1"], count)),
    }
    return _as_text(trained, evaluation, batches.source), figures


def evaluated_recipe(trained: Any) -> Any:
    """The recipe of a trained network with the test images to evaluate it on, by its classes.

    Of class folders that it was not trained on, all images are test images. Raises UserError as
    `Recipe.evaluated_on`.
    """
    all_images = trained.other_data and not _is_own(trained)
    return trained.recipe.evaluated_on(tuple(trained.checkpoint.meta["class_names"]), all_images=all_images)


def _is_own(trained: Any) -> bool:
    """Whether this folder, perhaps moved or copied, is what the network was trained on."""
    try:
        listed = facts_of({split: trained.recipe.source(split) for split in SPLITS})["listed"]
    except UserError:  # it cannot be trained on
        return False
    return listed == trained.checkpoint.meta.get("data", {}).get("listed")


def weights_in_words(trained: Any) -> str:
    """`step 1950, epoch 12, averaged weights`; the epoch is known of a run's checkpoint."""
    meta, kind = trained.checkpoint.meta, "averaged" if trained.averaged else "raw"
    epoch = f"epoch {meta['step'] / meta['course']['epoch']:.4g}, " if "course" in meta else ""
    return f"step {meta['step']}, {epoch}{kind} weights"


def _as_text(trained: Any, evaluation: Evaluation, source: Any) -> str:
    """The figures, and the classes that the network knows least."""
    config, figures, class_names = trained.recipe.config, evaluation.metrics, source.class_names
    there = np.count_nonzero(evaluation.totals.images)
    classes = f"{len(class_names):,}" if there == len(class_names) else f"{there:,} of {len(class_names):,}"
    low, high = interval(figures["top1"], figures["count"])
    rows = [
        ("checkpoint", f"{trained.checkpoint.path} ({config.model}, {weights_in_words(trained)})"),
    ]
    words = getattr(source, "words", ()) or (
        f"{figures['count']:,} images of {classes} classes from {config.data_path}",
    )
    rows += zip(("data", ""), words, strict=False)
    if evaluation.damaged:
        rows.append(("damaged", f"{evaluation.damaged:,} images, which are in no figure"))
    for name, value in figures.items():
        if name in METRICS:
            note = f"  (95 % interval {low:.2f} to {high:.2f})" if name == "top1" else ""
            if f"{name}_plain" in figures:
                note += f"  plain view {METRICS[name].text(figures[f'{name}_plain'])}"
            rows.append((METRICS[name].title, METRICS[name].text(value) + note))
    parts = [table(rows), "lowest recall", table(_lowest(evaluation.totals, class_names), indent=2)]
    if warning := warning_of(figures["count"]):
        parts.append(f"note: {warning}")
    return "\n".join(parts)


def _lowest(totals: Totals, class_names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    known = [label for label in range(totals.num_classes) if totals.images[label]]
    order = sorted(known, key=lambda label: totals.recall[label])[:_SHOWN]
    return [
        (
            class_names[label],
            f"{totals.recall[label]:.2f} %",
            f"{totals.right[label]:,} of {totals.images[label]:,} images",
        )
        for label in order
    ]
