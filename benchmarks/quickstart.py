# SPDX-License-Identifier: Apache-2.0
"""What does the quickstart give on this machine: accuracy, minutes, memory, and the wait before it trains?

    python -m benchmarks.quickstart --data_path DIR [--runs 1]      real CIFAR-10
    python -m benchmarks.quickstart --data_path data/shapes --name quickstart_shapes

Runs `scripts/quickstart.sh --data_path DIR` in an environment that is installed already, and writes
benchmarks/records/NAME.json.
"""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, write_record


def measure(data_path: str) -> tuple[dict[str, float], list[str]]:
    """The figures of one call of the quickstart, and its last lines. Its output is shown as it comes."""
    began = time.monotonic()
    start = None
    process = subprocess.Popen(
        ["bash", "scripts/quickstart.sh", "--data_path", data_path],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
        if start is None and line.startswith("training "):
            start = time.monotonic() - began
    if process.wait():
        sys.exit(f"the quickstart ended with {process.returncode}")
    seconds = time.monotonic() - began
    text = "".join(lines)
    run = Path(ROOT, re.search(r"^run +(\S+)$", text, re.MULTILINE)[1])
    summary = json.loads((run / "summary.json").read_text())
    figures = {
        "top1_percent": float(re.search(r"([\d.]+) % top-1", text)[1]),
        "seconds": round(seconds, 1),
        "seconds_before_training": round(start, 1),
        "training_seconds": summary["wall_seconds"],
        "images_per_second": summary["images_per_second"],
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    end = text[text.rindex("\naccuracy ") :]
    return figures, re.findall(r"^(?:accuracy|export|time|report|model) +.+$", end, re.MULTILINE)


def main():
    flags = parser(__doc__)
    flags.add_argument("--data_path", required=True)
    flags.add_argument("--runs", type=int, default=1)
    flags.add_argument("--name", default="quickstart", help="of the record (default quickstart)")
    own = flags.parse_args()
    measured = [measure(str(Path(own.data_path).resolve())) for _ in range(own.runs)]
    runs, ends = zip(*measured, strict=True)
    record = write_record(
        RECORDS / f"{own.name}.json",
        question="scripts/quickstart.sh in an installed environment: accuracy, time, memory",
        command=f"python -m benchmarks.quickstart --data_path DIR --runs {own.runs} --name {own.name}",
        **{key: spread([run[key] for run in runs]) for key in runs[0]},
        end="\n".join(ends[-1]),
    )
    print(json.dumps({key: record[key] for key in runs[0]}))


if __name__ == "__main__":
    end_with(main)
