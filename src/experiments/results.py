# SPDX-License-Identifier: Apache-2.0
"""What finished runs say, and the figures of arms that they make."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..evaluation.curves import training_seconds
from ..evaluation.metrics import of_plain_view
from ..model_utils.keys import Keys
from ..training.records import read_metrics
from . import statistics
from .plan import Arm, Run, views_of

SIZES = (0.1, 0.25, 0.5, 1.0)  # points of top-1: differences that the report names the number of runs for

_TOLD = ("seed", "epochs", "images", "batches", "wall_seconds", "environment")  # of a summary


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        config: what it was trained with.
        top1: per cent, of its last weights, by kind of views; its own kind first.
        environment: processor, cores and versions, as the run's summary has them.
        classes: of the data.
        curve: epochs, seconds of training (without evaluation) and top-1 of the plain view at each
            evaluation.
    """

    config: Keys
    seed: int
    top1: dict[str, float]
    epochs: float
    images: int
    batches: int
    wall_seconds: float
    environment: dict[str, Any]
    test_images: int
    classes: int
    curve: np.ndarray

    @classmethod
    def of(cls, run: Run) -> "Result":
        """Raises UserError where a file of the run is damaged or missing."""
        config, file = run.config, run.folder / "summary.json"
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            final = summary["final"]
            top1 = {views_of(config): final["top1"]}
            top1 |= {"none": final["top1_plain"]} if "top1_plain" in final else {}
            for file in sorted((run.folder / "views").glob("*.json")):
                answer = json.loads(file.read_text(encoding="utf-8"))
                top1[answer["views"]] = answer["top1"]
            told = [summary[name] for name in _TOLD]
            counts = final["count"], len(summary["recall_by_class"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error!r}); remove it, and call this again") from error
        seed, *told = told
        return cls(config, seed, top1, *told, *counts, _curve(read_metrics(run.folder / "metrics.jsonl")))


# A run's compute in PFLOP, evaluated once in that kind of views.
Compute = Callable[[Result, str], float]


def _curve(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """(evaluations, 3): epoch, seconds of training so far, top-1."""
    rows = [
        (record["epoch"], seconds, of_plain_view(record)["eval_top1"])
        for record, seconds in zip(records, training_seconds(records), strict=True)
        if "eval_top1" in record
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def facts_of(
    arms: Sequence[Arm], results: dict[str, list[Result]], *, baseline: str, compute: Compute
) -> dict[str, Any]:
    """The figures of the table, as plain values for JSON.

    Args:
        arms: in the order of the table.
        results: the finished runs of each arm by its name; arms without any are named as such.
        baseline: name of the arm that others are compared with; "previous": each with the one before it.
        compute: PFLOP of a run.
    """
    there = [arm for arm in arms if results[arm.name]]
    rows = [
        _row(arm, kind, results[arm.name], compute)
        for arm in there
        for kind in dict.fromkeys(kind for result in results[arm.name] for kind in result.top1)
    ]
    main = [next(row for row in rows if row["recipe"] == arm.name) for arm in there]
    sd = statistics.pooled_sd([row["top1"] for row in main])
    for row in rows:
        row |= _compared(row, _base_of(row, rows, baseline), sd)
    environments = [result.environment for arm in there for result in results[arm.name]]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "environments": [one for n, one in enumerate(environments) if one not in environments[:n]],
        "baseline": baseline,
        "rows": rows,
        "views": [
            _views_row(arm, kind, results[arm.name]) for arm in there for kind in _further(arm, results)
        ],
        "pooled_sd": sd,
        "runs_needed": {f"{size:g}": statistics.runs_needed(size, sd) for size in SIZES if sd},
        "level": statistics.LEVEL,
        "power": statistics.POWER,
        "without_runs": [arm.name for arm in arms if not results[arm.name]],
    }


def _row(arm: Arm, kind: str, results: Sequence[Result], compute: Compute) -> dict[str, Any]:
    chosen = [result for result in results if kind in result.top1]
    one = chosen[0]
    return {
        "recipe": arm.name,
        "views": kind,
        "seeds": [result.seed for result in chosen],
        "top1": [result.top1[kind] for result in chosen],
        **asdict(statistics.spread([result.top1[kind] for result in chosen])),
        "epochs": one.epochs,
        "images": one.images,
        "pflop": compute(one, kind),
        "wall_seconds": float(np.mean([result.wall_seconds for result in chosen])),
    }


def _base_of(row: dict[str, Any], rows: Sequence[dict[str, Any]], baseline: str) -> dict[str, Any] | None:
    """The row that another is compared with: the baseline's of the same views, or else its first.

    None: it is of the same recipe, or there is none.
    """
    if baseline == "previous":
        names = list(dict.fromkeys(other["recipe"] for other in rows))
        place = names.index(row["recipe"])
        baseline = names[place - 1] if place else row["recipe"]
    if baseline == row["recipe"]:
        return None
    found = [other for other in rows if other["recipe"] == baseline]
    return next((other for other in found if other["views"] == row["views"]), found[0] if found else None)


def _compared(row: dict[str, Any], base: dict[str, Any] | None, sd: float | None) -> dict[str, Any]:
    if base is None:
        return {"difference": None, "interval": None, "runs_needed": None}
    found = statistics.difference(row["top1"], base["top1"])
    return {
        "difference": found.mean,
        "interval": found.interval,
        "runs_needed": statistics.runs_needed(found.mean, sd) if sd else None,
    }


def _further(arm: Arm, results: dict[str, list[Result]]) -> list[str]:
    """The kinds of views that an arm has, where the plain view is one of several."""
    kinds = dict.fromkeys(kind for result in results[arm.name] for kind in result.top1)
    return [kind for kind in kinds if kind != "none"] if "none" in kinds else []


def _views_row(arm: Arm, kind: str, results: Sequence[Result]) -> dict[str, Any]:
    both = [result.top1 for result in results if {kind, "none"} <= result.top1.keys()]
    found = statistics.paired_difference([top1[kind] for top1 in both], [top1["none"] for top1 in both])
    return {
        "recipe": arm.name, "views": kind, "n": len(both), "difference": found.mean,
        "interval": found.interval,
    }  # fmt: skip
