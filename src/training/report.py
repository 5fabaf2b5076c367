# SPDX-License-Identifier: Apache-2.0
"""What is left when training ends: summary.json, the pictures and the page report.html."""

import logging
import math
import shlex
from typing import TYPE_CHECKING, Any

from ..common.cli import as_called_here
from ..common.files import to_json, write_json, write_text
from ..data.damage import left_out_of
from ..data.sources import SPLITS
from ..evaluation.curves import learning_curves
from ..evaluation.evaluate import Evaluation
from ..evaluation.pictures import write_pictures
from ..model_utils.environment import environment, peak_memory_mib
from ..reports import kept
from ..reports.kept import facts_of
from ..reports.run import NAME as PAGE
from ..reports.run import RunFacts, write_run_page
from .records import read_metrics

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger("quartet")


def write_report(trainer: "Trainer", evaluation: Evaluation) -> dict[str, Any]:
    """Writes summary.json, learning_curves.png, the pictures and the page; rank 0 only.

    Args:
        evaluation: of the final weights (averaged, where an average is kept).

    Returns the summary. Metrics that are not finite are None in it, as JSON has no number for them.
    """
    c = trainer.config
    run_dir = trainer.run_dir
    recall = zip(trainer.class_names, evaluation.totals.recall)
    recall_by_class = {name: round(float(share), 2) for name, share in recall}
    summary = {
        "model": c.model,
        "parameters": sum(p.size for p in trainer.network.trainable_params()),
        "final": _finite_or_none(evaluation.metrics),
        "best": trainer.progress.best,
        "recall_by_class": _finite_or_none(recall_by_class),
        "damaged_images": _damaged_images(trainer, evaluation),
        "images": trainer.progress.images,
        "batches": trainer.course.steps,
        "updates": trainer.course.updates,
        "epochs": trainer.course.steps / trainer.course.epoch,
        "wall_seconds": round(trainer.seconds, 1),
        "images_per_second": None,
        "peak_memory_mib": round(peak_memory_mib()),
        "seed": c.seed,
        "device": {"target": trainer.device.target, "cards": trainer.device.size},
        "environment": environment(),
    }
    if trainer.device.rank != 0:
        return summary
    records = read_metrics(run_dir / "metrics.jsonl")
    speeds = sorted(r["images_per_second"] for r in records if "images_per_second" in r)
    summary["images_per_second"] = round(speeds[len(speeds) // 2], 1) if speeds else None
    write_json(run_dir / "summary.json", summary)
    learning_curves(records, run_dir / "learning_curves.png")
    how = {
        "class_names": trainer.class_names,
        "mean": c.image_mean,
        "std": c.image_std,
        "of": _weights_in_words(trainer),
        "name_of": trainer.evaluator.batches.source.name,
    }
    write_pictures(evaluation, run_dir, **how)
    write_page(trainer, evaluation, how)
    log.info("summary and pictures are in %s", run_dir)
    return summary


def write_page(trainer: "Trainer", evaluation: Evaluation, how: dict[str, Any]) -> None:
    """Writes evaluation.json and report.html. The run is complete without them: what fails is said."""
    try:
        text = to_json(facts_of(evaluation, **how))
        write_text(trainer.run_dir / kept.NAME, f"{text}\n")
        records = read_metrics(trainer.run_dir / "metrics.jsonl")
        run = RunFacts.read(trainer.run_dir, config=trainer.config, records=records)
        write_run_page(run, trainer.run_dir / PAGE)
    except Exception as error:
        log.warning(
            as_called_here(
                "%s is not written (%s: %s); the run is complete. Again: python -m src.tools.report %s"
            ),
            PAGE, type(error).__name__, " ".join(str(error).split()), shlex.quote(str(trainer.run_dir)),
        )  # fmt: skip


def _damaged_images(trainer: "Trainer", evaluation: Evaluation) -> dict[str, int]:
    """How many images of each split could not be read in the whole run; it is said where there are any."""
    damaged = {split: left_out_of(trainer.recipe.source(split)) for split in SPLITS}
    damaged["train"] += len(trainer.progress.damaged)
    damaged["test"] += evaluation.damaged
    if any(damaged.values()):
        log.warning(
            "damaged images: %d for training, left out or replaced, and %d held out, which are in no figure",
            damaged["train"], damaged["test"],
        )  # fmt: skip
    return damaged


def _weights_in_words(trainer: "Trainer") -> str:
    """Which weights the pictures show: the last ones, which need not be those of `best`."""
    kind = "averaged" if trainer.config.ema_decay else "raw"
    place, best = trainer.progress.place(trainer.course), trainer.progress.best
    text = f"epoch {place['epoch']:.4g}, {kind} weights"
    if best and best["images"] != place["images"]:
        text += f" (best: epoch {best['epoch']:.4g})"
    return text


def _finite_or_none(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
