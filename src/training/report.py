"""What is left when training ends: summary.json and the pictures."""

import logging
import math
from typing import TYPE_CHECKING, Any

from ..common.files import write_json
from ..evaluation.evaluate import Evaluation
from ..evaluation.pictures import confusion_matrix, learning_curves, worst_mistakes
from ..model_utils.environment import environment, peak_memory_mib
from .records import read_metrics

if TYPE_CHECKING:
    from .loop import Trainer

log = logging.getLogger("quartet")


def write_report(trainer: "Trainer", evaluation: Evaluation) -> dict[str, Any]:
    """Writes summary.json, learning_curves.png, confusion_matrix.png and worst_mistakes.png; rank 0 only.

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
        "best": trainer.best,
        "recall_by_class": _finite_or_none(recall_by_class),
        "steps": trainer.steps,
        "epochs": trainer.steps / trainer.steps_per_epoch,
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
    confusion_matrix(evaluation.totals.confusion, trainer.class_names, run_dir / "confusion_matrix.png")
    worst_mistakes(
        evaluation.mistakes, trainer.class_names, c.image_mean, c.image_std, run_dir / "worst_mistakes.png"
    )
    log.info("summary and pictures are in %s", run_dir)
    return summary


def _finite_or_none(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
