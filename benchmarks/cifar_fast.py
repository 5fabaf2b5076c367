# SPDX-License-Identifier: Apache-2.0
"""How accurate is configs/resnet9/cifar10_fast.yaml, for how much compute, and how long does it take?

    python -m benchmarks.cifar_fast --data DIR --airbench airbench94_muon.py --torch_python VENV/bin/python

DIR has CIFAR-10's binary files, airbench94_muon.py is that of github.com/KellerJordan/cifar10-airbench, and
the environment VENV has torch 2.13.0 and numpy 1.26.4. Trains three seeds, and lets airbench94_muon run once
on the same machine in between (airbench_peer.py). What is finished is not done again: call it again until it
ends.

Writes benchmarks/records/cifar_fast.json. The bars: the mean top-1 with test views at least 90.7 %, for at
most 0.29 PFLOP; the median wall time of a run at most 1.1 times that of airbench94_muon with its test views.
"""

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, version_of, write_record
from benchmarks.runs import answer, train
from src.common.files import write_json

CONFIG = "resnet9/cifar10_fast.yaml"
IMAGES = 50_000
TOP1, PFLOP, RATIO = 90.7, 0.29, 1.1


def airbench(python: str, file: Path, data: Path, kept: Path) -> dict[str, Any]:
    """What airbench_peer.py says of its run."""
    if not kept.exists():
        command = [python, "-m", "benchmarks.airbench_peer", str(file.resolve()), str(data.resolve())]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        write_json(kept, json.loads(ended.stdout.splitlines()[-1]))
    return json.loads(kept.read_text())


def figures(runs: list[dict[str, Any]], peer: dict[str, Any], pflop: float) -> dict[str, Any]:
    """The record of the runs' summaries and of airbench's run."""
    top1, seconds = [run["final"]["top1"] for run in runs], [run["wall_seconds"] for run in runs]
    deviation = round(statistics.stdev(top1), 3) if len(top1) > 1 else None
    ratio = statistics.median(seconds) / (peer["train_seconds"] + peer["views_seconds"])
    return {
        "pflop": round(pflop, 4),
        "top1": spread(top1) | {"standard_deviation": deviation},
        "top1_plain_view": spread([run["final"]["top1_plain"] for run in runs]),
        "seconds": spread(seconds, 1),
        "airbench94_muon": peer,
        "ratio_of_seconds": round(ratio, 3),
        "bar": f"top-1 >= {TOP1}, PFLOP <= {PFLOP}, ratio <= {RATIO}",
        "bars_met": {
            "top1": statistics.mean(top1) >= TOP1,
            "pflop": pflop <= PFLOP,
            "seconds": ratio <= RATIO,
        },
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10's binary files")
    flags.add_argument("--airbench", type=Path, required=True, help="airbench94_muon.py")
    flags.add_argument("--torch_python", required=True, help="the Python of an environment with torch 2.13.0")
    flags.add_argument("--seeds", type=int, default=3, help="runs, with the seeds 0 to N - 1 (3)")
    flags.add_argument("--output_path", type=Path, default=Path("runs/cifar_fast"), help="folder of all runs")
    own = flags.parse_args()
    if own.seeds < 1:
        flags.error(f"seeds: {own.seeds} given, allowed: a whole number >= 1")
    folder = own.output_path.resolve()

    def run(seed: int) -> dict[str, Any]:
        return train(CONFIG, folder / f"seed_{seed}", data_path=own.data.resolve(), seed=seed)

    runs = [run(0)]
    peer = airbench(own.torch_python, own.airbench, own.data, folder / "airbench94_muon.json")
    runs += [run(seed) for seed in range(1, own.seeds)]
    cost = answer(
        "-m", "src.tools.summary", "--json", config_path=ROOT / "configs" / CONFIG, images=IMAGES
    )  # fmt: skip
    found = figures(runs, peer, cost["compute"]["pflop"])
    write_record(
        RECORDS / "cifar_fast.json",
        question="CIFAR-10 by cifar10_fast.yaml: top-1, and wall time against airbench94_muon, float32, CPU",
        command="python -m benchmarks.cifar_fast --data DIR --airbench FILE --torch_python PYTHON",
        versions={"torch": version_of("torch", python=own.torch_python)},
        **found,
    )
    print(json.dumps(found, indent=1))
    return 0 if all(found["bars_met"].values()) else 1


if __name__ == "__main__":
    end_with(main)
