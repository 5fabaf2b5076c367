# SPDX-License-Identifier: Apache-2.0
"""Does a network that is trained for classes and copies at once become better at both?

    python -m benchmarks.multigrain_joint --data DIR --photographs DIR [DIR ...]

Trains by configs/multigrain/tiny_imagenet.yaml, all with the same number of images seen: `plain`
(cross-entropy, single images), `repeated` (cross-entropy, each image three times in a batch), `joint` (lambda
0.5, three times) and `joint_2` (lambda 0.5, twice). The rate of each is the best in top-1 of the same trials
of 8 epochs; three seeds are trained with it. Measured: top-1 on the validation images; the mean average
precision of finding the original of a distorted copy among them, and of finding other views of the same
thing among them (those of retrieval_sets.PAIRS, which the folders of --photographs hold). Of the better joint
network also p* at one and a half times the resolution, and whitening. A curve of lambda shows the trade, at
the first seed and that network's rate; with a larger lambda at a lower one (`rate_of`).

What is finished is not done again, and a run that was interrupted goes on: call it again until it ends.
Writes benchmarks/records/multigrain_joint.json, docs/multigrain_joint.png, the sheet of copies
docs/multigrain_copies.png, and that of other views, pairs.png, into the folder of the runs.
The bars: joint against plain, mean of the seeds, mAP of copies at least 5 points higher and top-1 at most 1
point lower; p* gains in top-1 over the training's p.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, write_record
from benchmarks.retrieval_sets import PAIRS, copies_set, pairs_set
from benchmarks.runs import answer, shrink_picture, train
from src.common.files import write_json
from src.data.folders import find_in
from src.retrieval.copies import KINDS

CONFIG = "multigrain/tiny_imagenet.yaml"
RECORD = RECORDS / "multigrain_joint.json"
PICTURE = ROOT / "docs" / "multigrain_joint.png"
NETWORKS = {
    "plain": {"classification_weight": 1.0, "repetitions": 1},
    "repeated": {"classification_weight": 1.0, "repetitions": 3},
    "joint": {"classification_weight": 0.5, "repetitions": 3},
    "joint_2": {"classification_weight": 0.5, "repetitions": 2},
}
RATES = (0.1, 0.2, 0.4)
TRIAL_EPOCHS = 8
SEEDS = (0, 1, 2)
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
PLAIN_KINDS = tuple(kind for kind in KINDS if kind != "strong")
FIGURES = ("top1", "map_copies", "map_strong", "map_pairs")
MAP_POINTS, TOP1_POINTS = 5.0, -1.0
COPIES = 400  # originals
REGULARISATION = 0.01  # of whitening: a channel of some network is the same for all images
LARGER = 48  # pixels: one and a half times the training's


class Experiment:
    """The runs and what was measured on them, each once, in files below `folder`."""

    def __init__(self, folder: Path, data: Path, photographs: list[Path]):
        self.folder, self.data = folder, data
        files = find_in(data / "val").files
        self.images = len(files)
        self.sets = {
            "copies": copies_set(files, folder / "copies_set", COPIES),
            "pairs": pairs_set(files, folder / "pairs_set", photographs),
        }

    def trial(self, name: str, rate: float) -> float:
        """Top-1 after a short training at this rate."""
        keys = {**NETWORKS[name], "lr": rate, "epochs": TRIAL_EPOCHS, "seed": 0}
        return train(CONFIG, self.folder / f"rate-{name}-{rate}", data_path=self.data, **keys)["final"][
            "top1"
        ]

    def run(self, name: str, keys: Mapping[str, float], rate: float, seed: int) -> dict[str, Any]:
        """A whole training, and how good its last weights are."""
        run = self.folder / f"{name}-{rate}-{seed}"
        summary = train(CONFIG, run, data_path=self.data, lr=rate, seed=seed, **keys)
        found = self.retrieve(self.weights(name, rate, seed), run / "retrieval.json")
        row = {
            "seed": seed,
            "rate": rate,
            "top1": summary["final"]["top1"],
            **found,
            "map_strong": found["map_by_kind"]["strong"],
            "images_seen": summary["images"],
            "parameters": summary["parameters"],
            "seconds": round(summary["wall_seconds"]),
        }
        print(json.dumps({"network": name, **row}), flush=True)
        return row

    def weights(self, name: str, rate: float, seed: int) -> Path:
        return self.folder / f"{name}-{rate}-{seed}" / "checkpoints" / "last.ckpt"

    def retrieve(self, weights: Path, kept: Path, **keys: Any) -> dict[str, Any]:
        """The mAP of copies and of pairs in per cent, kept in a file."""

        def measure() -> dict[str, Any]:
            task = {"checkpoint_path": weights, "task": "retrieval", **keys}
            copies = answer("eval.py", protocol="copydays", **task, **self.sets["copies"])["mAP_by_kind"]
            pairs = answer("eval.py", protocol="groups", **task, **self.sets["pairs"])
            return {
                "map_copies": statistics.mean(copies[kind] for kind in PLAIN_KINDS),
                "map_by_kind": copies,
                "map_pairs": pairs["mAP"],
                "pair_queries": pairs["queries"],
            }

        return once(kept, measure)

    def larger(self, weights: Path) -> dict[str, Any]:
        """p* by half of the validation images, at LARGER pixels; the figures are of the other half."""
        found = once(
            weights.parent.parent / "larger.json",
            lambda: answer(
                "-m", "src.multigrain.choose_p",
                checkpoint_path=weights, data_path=self.data, eval_image_size=LARGER,
            ),
        )  # fmt: skip
        return {key: value for key, value in found.items() if key != "checkpoint"}  # a path of this machine

    def whitened(self, weights: Path) -> dict[str, Any]:
        """The same network whitened by the training images."""
        run = weights.parent.parent
        white = run / "white.ckpt"
        if not white.exists():
            images = self.data / "train"
            keys = {"images": images, "output": white, "regularisation": REGULARISATION}
            answer("-m", "src.multigrain.whiten", checkpoint_path=weights, **keys)
        return self.retrieve(white, run / "whitened.json")

    def sheet(self, weights: Path, which: str, path: Path) -> None:
        """The worst queries, and a sample of the others."""
        protocol = {"copies": "copydays", "pairs": "groups"}[which]
        answer(
            "eval.py",
            checkpoint_path=weights,
            task="retrieval",
            protocol=protocol,
            sheet=path,
            **self.sets[which],
        )
        shrink_picture(path)


def once(kept: Path, measure) -> dict[str, Any]:
    """What `measure` gave the first time."""
    if not kept.exists():
        write_json(kept, measure())
    return json.loads(kept.read_text())


def tune(experiment: Experiment) -> dict[str, dict[float, float]]:
    """Top-1 of each network by rate. Where the best is the first or last rate, all networks try one more."""
    rates = sorted(RATES)
    while True:
        tried = {name: {rate: experiment.trial(name, rate) for rate in rates} for name in NETWORKS}
        best = {best_of(row) for row in tried.values()}
        more = [rates[0] / 2] * (rates[0] in best) + [rates[-1] * 2] * (rates[-1] in best)
        if not more:
            return tried
        rates = sorted({*rates, *more})


def rate_of(weight: float, plain: float, joint: float) -> float:
    """The joint network's, or that of which lambda times is the rate of `plain`, if that is lower."""
    return min(joint, round(plain / weight, 2)) if weight else joint


def best_of(row: Mapping[float, float]) -> float:
    return max(row, key=row.get)


def minus(rows: list[dict], others: list[dict]) -> dict[str, Any]:
    """Gains of each figure in points, seed by seed."""
    pairs = list(zip(rows, others, strict=True))
    return {f"{name}_points": spread([a[name] - b[name] for a, b in pairs]) for name in FIGURES}


def bars_met(gains: Mapping[str, Any]) -> bool:
    return gains["map_copies_points"]["mean"] >= MAP_POINTS and gains["top1_points"]["mean"] >= TOP1_POINTS


def draw(experiment: Experiment, rates: Mapping[str, float], curve: list[dict]) -> None:
    """Top-1 and the probe's recall of copies against epochs, and top-1 against mAP over lambda."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, key, title in (
        (axes[0], "eval_top1", "top-1, %"),
        (axes[1], "monitor_instance_recall", "recall of copies (probe), %"),
    ):
        for name, rate in rates.items():
            runs = []
            for seed in SEEDS:
                lines = (
                    (experiment.folder / f"{name}-{rate}-{seed}" / "metrics.jsonl").read_text().splitlines()
                )
                rows = [row for row in map(json.loads, lines) if key in row]
                runs.append([row[key] for row in rows])
                epochs = [row["epoch"] for row in rows]
            (line,) = axis.plot(
                epochs, [statistics.mean(values) for values in zip(*runs, strict=True)], label=name
            )
            low, high = ([pick(v) for v in zip(*runs, strict=True)] for pick in (min, max))
            axis.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[2].plot([row["lambda"] for row in curve], [row["map_copies"] for row in curve], marker="o")
    for row in curve:
        place = (row["lambda"], row["map_copies"])
        axes[2].annotate(f"{row['top1']:.1f}", place, xytext=(0, 6), textcoords="offset points", ha="center")
    axes[2].margins(0.12)
    axes[2].set(xlabel="lambda", title="mAP of copies, %; top-1 at each point")
    axes[2].grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, type=Path, help="Tiny-ImageNet's 40 classes: train/, val/")
    flags.add_argument("--photographs", required=True, nargs="+", type=Path, help="folders that hold PAIRS")
    flags.add_argument("--output_path", type=Path, default=Path("runs/multigrain_joint"))
    own = flags.parse_args()

    experiment = Experiment(own.output_path.resolve(), own.data.resolve(), own.photographs)
    tried = tune(experiment)
    rates = {name: best_of(row) for name, row in tried.items()}
    results: dict[str, list[dict]] = {name: [] for name in NETWORKS}
    for seed in SEEDS:  # one seed of all first: what is interrupted can be compared
        for name, rows in results.items():
            rows.append(experiment.run(name, NETWORKS[name], rates[name], seed))
    means = {
        name: statistics.mean(r["top1"] + r["map_copies"] for r in rows) for name, rows in results.items()
    }
    best = max(("joint", "joint_2"), key=means.get)
    repetitions, rate = NETWORKS[best]["repetitions"], rates[best]
    curve = []
    for weight in LAMBDAS:
        keys = {"classification_weight": weight, "repetitions": repetitions}
        name = f"lambda_{weight}_{repetitions}" if weight != NETWORKS[best]["classification_weight"] else best
        of_weight = rate_of(weight, rates["plain"], rate)
        curve.append({"lambda": weight, **experiment.run(name, keys, of_weight, SEEDS[0])})
    weights = [experiment.weights(best, rate, seed) for seed in SEEDS]
    larger = [experiment.larger(path) for path in weights]
    gains = [row["top1_star"] - row["top1_training"] for row in larger]
    draw(experiment, rates, curve)
    experiment.sheet(weights[0], "copies", ROOT / "docs" / "multigrain_copies.png")
    experiment.sheet(weights[0], "pairs", experiment.folder / "pairs.png")  # of photographs that are not ours
    compared = {name: minus(rows, results["plain"]) for name, rows in results.items() if name != "plain"}
    whitened = [experiment.whitened(path) for path in weights]
    record = write_record(
        RECORD,
        question="top-1, copies and other views of a thing: the joint loss, or classification alone",
        command="python -m benchmarks.multigrain_joint --data DIR --photographs DIR [DIR ...]",
        config=f"configs/{CONFIG}",
        networks=NETWORKS,
        images_evaluated=experiment.images,
        copies_of_each_kind=COPIES,
        pairs=PAIRS,
        trials={"epochs": TRIAL_EPOCHS, "top1_by_rate": tried},
        rates=rates,
        results=results,
        mean={
            name: {key: spread([row[key] for row in rows]) for key in FIGURES}
            for name, rows in results.items()
        },
        minus_plain=compared,
        joint_minus_repeated=minus(results["joint"], results["repeated"]),
        best_joint=best,
        lambda_curve=curve,
        larger_images={"pixels": LARGER, "top1_gain_of_p_star": spread(gains), "runs": larger},
        whitened={
            **{key: spread([row[key] for row in whitened]) for key in ("map_copies", "map_pairs")},
            "runs": whitened,
        },
        bars={"map_points": MAP_POINTS, "top1_points": TOP1_POINTS, "met": bars_met(compared[best])},
    )
    print(json.dumps(record, indent=1))
    return 0 if record["bars"]["met"] and statistics.mean(gains) > 0 else 1


if __name__ == "__main__":
    end_with(main)
