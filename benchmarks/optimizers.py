# SPDX-License-Identifier: Apache-2.0
"""Is THOR worth its step? Steps and time to SGD's accuracy, with Muon beside it.

    python -m benchmarks.optimizers --data DIR

DIR has CIFAR-10's binary files. Trains a narrow ResNet-20 by the recipes of configs/resnet9/cpu/optimizers.
The rate of each is the best in top-1 of the same number of trials, with a seed of their own; where it is the
first or last that was tried, all try one more. All other settings are those of the recipes. Then each trains
with three seeds, and with the same seeds in three quarters of the epochs, in turns. What is finished is not
done again, and a run that was interrupted goes on: call it again until it ends. A trial that diverges has a
top-1 of 0.

A run's seconds are those of its batches, without evaluation, compilation and saving.

Writes benchmarks/records/optimizers.json. The bars: THOR's mean final top-1 in three quarters of the steps is
at least SGD's; its step costs at most 1.4 times SGD's, steps with new inverses included.
"""

import functools
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RECORDS, end_with, parser, spread, write_record
from benchmarks.runs import Diverged, train
from src.common.files import read_json, write_json
from src.evaluation.curves import training_seconds
from src.reports.starts import NAME as STARTS
from src.training.records import read_metrics

RECIPES = "resnet9/cpu/optimizers"
# Which key is tuned, and where that starts; half and double in between.
RATES = {
    "sgd": ("lr", (0.4, 0.8, 1.6)),
    "thor": ("thor_lr", (0.001, 0.002, 0.004)),
    "muon": ("muon_lr", (0.05, 0.1, 0.2)),
}
SEEDS = (0, 1, 2)
TRIAL_SEED = 3
EPOCHS, SHORTER = 8.0, 0.75
STEPS, COST = 0.75, 1.4


def run(
    name: str, rate: float, seed: int, epochs: float = EPOCHS, *, folder: Path, data: Path
) -> dict[str, Any]:
    """Accuracy and seconds of one training, made once below `folder`; of one that diverges its top-1."""
    made = folder / f"{name}-{rate:g}-{seed}" / f"{epochs:g}"
    diverged = made.parent / f"{made.name}.diverged.json"
    if kept := read_json(diverged):
        return kept
    key, _ = RATES[name]
    # 39 batches are half an epoch: no record is of fewer, and two are enough to have compiled.
    keys = {key: rate, "seed": seed, "epochs": epochs, "log_every": 39}
    try:
        summary = train(f"{RECIPES}/{name}_resnet20.yaml", made, data_path=data, **keys)
    except Diverged as error:
        write_json(diverged, {"seed": seed, "rate": rate, "top1": 0.0, "diverged": str(error)})
        return read_json(diverged)
    rows = read_metrics(made / "metrics.jsonl")
    evaluations = [(row["images"], row["eval_top1"]) for row in rows if "eval_top1" in row]
    seconds = summary["images"] * seconds_an_image(rows, read_json(made / STARTS))
    return {
        "seed": seed,
        "rate": rate,
        "top1": summary["final"]["top1"],
        "steps": summary["updates"],
        "seconds": round(seconds, 1),
        "ms_a_step": round(1000 * seconds / summary["updates"], 1),
        "evaluations": [
            (round(images / summary["images"] * summary["updates"]), top1) for images, top1 in evaluations
        ],
    }


def seconds_an_image(rows: Sequence[dict[str, Any]], starts: Sequence[dict[str, Any]]) -> float:
    """The mean over all records but the first two after each start, which have the compilation."""
    each = np.diff([0.0, *training_seconds(rows)])
    trained = [(row, seconds) for row, seconds in zip(rows, each, strict=True) if seconds]
    left_out = [
        row["images"]
        for start in starts
        for row in [row for row, _ in trained if row["images"] > start["images"]][:2]
    ]
    counted = [(row, seconds) for row, seconds in trained if row["images"] not in left_out]
    images = sum(row["images_per_second"] * seconds for row, seconds in counted)
    return float(sum(seconds for _, seconds in counted) / images)


def tune(run: Callable[[str, float, int], dict[str, Any]]) -> dict[str, dict[float, float]]:
    """Top-1 of each optimizer by rate, of the same number of rates."""
    tried: dict[str, dict[float, float]] = {name: {} for name in RATES}
    rates = {name: list(start) for name, (_, start) in RATES.items()}
    while True:
        for name, row in tried.items():
            for rate in rates[name]:
                if rate not in row:
                    row[rate] = run(name, rate, TRIAL_SEED)["top1"]
        more = {name: _beyond(row) for name, row in tried.items()}
        if not any(more.values()):
            return tried
        for name, row in tried.items():
            rates[name].append(more[name] or _beyond(row, anyway=True))


def _beyond(row: dict[float, float], *, anyway: bool = False) -> float:
    """The next rate on the side where the best one is the last; 0: it is not."""
    best, first, last = max(row, key=row.get), min(row), max(row)
    if best == first or (anyway and row[first] >= row[last]):
        return first / 2
    return last * 2 if best == last or anyway else 0.0


def common_top1(runs: Sequence[dict[str, Any]]) -> int:
    """The highest whole percentage that every run reached."""
    return math.floor(min(max(top1 for _, top1 in run["evaluations"]) for run in runs))


def reached(run: dict[str, Any], target: float) -> dict[str, float]:
    """After how many steps and seconds a run's top-1 was first that high; it must have been."""
    step = next(step for step, top1 in run["evaluations"] if top1 >= target)
    return {"steps": step, "seconds": round(step * run["ms_a_step"] / 1000, 1)}


def figures(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means and spreads, and whether the bars are met."""
    sgd, shorter = results["sgd"], results["thor, shorter"]
    target = statistics.mean(run["top1"] for run in sgd)
    costs = [a["ms_a_step"] / b["ms_a_step"] for a, b in zip(results["thor"], sgd, strict=True)]
    steps = shorter[0]["steps"] / sgd[0]["steps"]
    measured = ("top1", "steps", "seconds", "ms_a_step")
    common = common_top1([run for runs in results.values() for run in runs])
    to_common = {name: [reached(run, common) for run in runs] for name, runs in results.items()}
    return {
        "summary": {
            name: {key: spread([run[key] for run in runs]) for key in measured}
            for name, runs in results.items()
        },
        "target": round(target, 2),
        "common_top1": common,
        "to_common_top1": {
            name: {key: spread([one[key] for one in found]) for key in ("steps", "seconds")}
            for name, found in to_common.items()
        },
        "thor_over_sgd": {"steps": round(steps, 3), "cost_of_a_step": spread(costs)},
        "bars_met": {
            "steps": statistics.mean(run["top1"] for run in shorter) >= target and steps <= STEPS,
            "cost": statistics.median(costs) <= COST,
        },
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, type=Path, help="folder of CIFAR-10's binary files")
    flags.add_argument("--output_path", type=Path, default=Path("runs/optimizers"), help="folder of all runs")
    own = flags.parse_args()
    one = functools.partial(run, folder=own.output_path.resolve(), data=own.data.resolve())
    tried = tune(one)
    rates = {name: max(row, key=row.get) for name, row in tried.items()}
    plan = [(name, name, EPOCHS) for name in RATES]
    plan += [(f"{name}, shorter", name, SHORTER * EPOCHS) for name in RATES]
    results: dict[str, list[dict[str, Any]]] = {title: [] for title, *_ in plan}
    for seed in SEEDS:
        for title, name, epochs in plan:
            found = one(name, rates[name], seed, epochs)
            if "diverged" in found:
                sys.exit(f"{title}: seed {seed} diverged at its best rate, {rates[name]:g}: no comparison")
            results[title].append(found)
    found = figures(results)
    record = write_record(
        RECORDS / "optimizers.json",
        question="steps and seconds to SGD's top-1 on CIFAR-10, narrow ResNet-20: SGD, THOR, Muon",
        command="python -m benchmarks.optimizers --data DIR",
        recipes=f"configs/{RECIPES}",
        tuned={name: key for name, (key, _) in RATES.items()},
        top1_by_rate=tried,
        rates=rates,
        epochs=EPOCHS,
        **found,
        runs=results,
    )
    print(json.dumps({key: record[key] for key in ("rates", *found)}, indent=1))
    return 0 if all(found["bars_met"].values()) else 1


if __name__ == "__main__":
    end_with(main)
