"""This checkout against another one, as of an earlier commit: the quickstart's training, in turns.

    git worktree add ../before COMMIT
    python -m benchmarks.two_checkouts --other ../before --data DIR

Trains configs/resnet9/quickstart.yaml on CIFAR-10 in DIR with each checkout's own train.py. Images/s are the
median of the records of metrics.jsonl, without the first, which has the compilation in it. Writes
benchmarks/records/two_checkouts.json.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import RECORDS, ROOT, parser, spread, write_record


def train(checkout: Path, data: str, output: Path, name: str, epochs: str) -> dict[str, float]:
    """Images/s, seconds and top-1 of one training."""
    keys = {"data_path": data, "output_path": output, "run_name": name, "epochs": epochs}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "train.py", "--config_path", "configs/resnet9/quickstart.yaml", *words]
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{checkout}: {ended.stderr}")
    lines = (output / name / "metrics.jsonl").read_text().splitlines()
    speeds = [record["images_per_second"] for record in map(json.loads, lines) if "loss" in record]
    summary = json.loads((output / name / "summary.json").read_text())
    return {
        "images_per_second": statistics.median(speeds[1:]),
        "seconds": summary["wall_seconds"],
        "top1": summary["final"]["top1"],
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--other", required=True, type=Path, help="the other checkout")
    flags.add_argument("--data", required=True, help="folder with cifar-10-batches-bin")
    flags.add_argument("--turns", type=int, default=3, help="trainings of each (default 3)")
    flags.add_argument("--epochs", default="2", help="of each training (default 2, the quickstart)")
    own = flags.parse_args()

    data, found = str(Path(own.data).absolute()), {"this": [], "other": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(own.turns):
            for name, checkout in (("other", own.other), ("this", ROOT)):
                run = train(checkout, data, Path(folder), f"{name}-{turn}", own.epochs)
                found[name].append(run)
                print(name, run, flush=True)
    pairs = list(zip(found["this"], found["other"], strict=True))
    commit = ["git", "-C", str(own.other), "rev-parse", "--short", "HEAD"]
    record = write_record(
        RECORDS / "two_checkouts.json",
        question="the quickstart's training, this checkout against an earlier one",
        command="python -m benchmarks.two_checkouts --other CHECKOUT --data DIR",
        other_commit=subprocess.run(commit, capture_output=True, text=True).stdout.strip(),
        epochs=float(own.epochs),
        **{
            name: {key: spread([run[key] for run in runs]) for key in runs[0]} for name, runs in found.items()
        },
        **{
            f"ratio_of_{key}": spread([this[key] / other[key] for this, other in pairs], 3)
            for key in ("images_per_second", "seconds")
        },
    )
    print(record["ratio_of_images_per_second"], record["ratio_of_seconds"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
