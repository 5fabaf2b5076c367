# SPDX-License-Identifier: Apache-2.0
"""Weak scaling on a CPU: one process on one core, and two processes on a core each, with as many images each.

    python -m benchmarks.weak_scaling --data DIR

Trains the ResNet9 of configs/resnet9/quickstart.yaml on CIFAR-10 in DIR through
scripts/run_distribute_train.sh, 64 images a process, the two kinds in turns. Images/s are those of
metrics.jsonl, without the first record, which has the compilation in it. Writes
benchmarks/records/weak_scaling.json.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, write_record

BATCH, STEPS, LOG_EVERY = 64, 80, 10


def images_per_second(data: str, processes: int, folder: Path, name: str) -> float:
    """The median over the records of one training."""
    from src.training.records import read_metrics

    keys = {
        "batch_size": BATCH, "train_steps": STEPS, "log_every": LOG_EVERY, "eval_every": 1000,
        "lr_schedule": "constant",
        "output_path": folder, "run_name": name,
    }  # fmt: skip
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    script = ["bash", "scripts/run_distribute_train.sh", "configs/resnet9/quickstart.yaml", data]
    ended = subprocess.run(
        ["taskset", "-c", "0-1" if processes == 2 else "0", *script, str(processes), *words],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "DEVICE_TARGET": "CPU", "LOG_DIR": str(folder / f"log-{name}")},
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"{name}: {ended.stderr}")
    records = read_metrics(folder / name / "metrics.jsonl")
    return statistics.median([r["images_per_second"] for r in records if "images_per_second" in r][1:])


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, help="folder with cifar-10-batches-bin")
    flags.add_argument("--turns", type=int, default=3, help="trainings of each kind (default 3)")
    own = flags.parse_args()

    rates = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(own.turns):
            for processes, values in rates.items():
                name = f"{processes}-{turn}"
                values.append(images_per_second(own.data, processes, Path(folder), name))
                print(f"{processes} process(es): {values[-1]:.0f} images/s", flush=True)
    record = write_record(
        RECORDS / "weak_scaling.json",
        question=f"images/s of 1 and of 2 processes of a core and {BATCH} images each, ResNet9, CPU",
        command="python -m benchmarks.weak_scaling --data DIR",
        images_per_second={f"{processes}_processes": spread(values) for processes, values in rates.items()},
        efficiency=spread([two / (2 * one) for one, two in zip(rates[1], rates[2], strict=True)], 3),
    )
    print(record["efficiency"])
    return 0


if __name__ == "__main__":
    end_with(main)
