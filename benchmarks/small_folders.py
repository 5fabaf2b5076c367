# SPDX-License-Identifier: Apache-2.0
"""What do the recipes for one's own pictures give, and in how many minutes on this machine?

    python -m benchmarks.small_folders --data DIR

DIR has one folder of pictures a class, none held out. Trains configs/*/small_folder.yaml, one after another.
What is finished is not done again. Writes benchmarks/records/small_folders.json.
"""

import json
from pathlib import Path

from benchmarks.record import RECORDS, end_with, parser, write_record
from benchmarks.runs import train

MODELS = ("bit", "bireal", "multigrain", "resnet9")


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, type=Path, help="folder with one folder of pictures a class")
    flags.add_argument("--output_path", type=Path, default=Path("runs/small"), help="folder of all runs")
    own = flags.parse_args()
    results = {}
    for model in MODELS:
        run = own.output_path.resolve() / model
        summary = train(f"{model}/small_folder.yaml", run, data_path=own.data.resolve())
        results[model] = {
            "best_top1": summary["best"]["top1"],
            "best_epoch": summary["best"]["epoch"],
            "epochs": summary["epochs"],
            "top1": summary["final"]["top1"],
            "seconds": summary["wall_seconds"],
            "peak_memory_mib": summary["peak_memory_mib"],
        }
    record = write_record(
        RECORDS / "small_folders.json",
        question="the recipes for one's own pictures: top-1 on held-out pictures, seconds of training",
        command="python -m benchmarks.small_folders --data DIR",
        recipes="configs/*/small_folder.yaml",
        pictures=sum(1 for path in own.data.glob("*/*") if path.is_file()),
        classes=len(summary["recall_by_class"]),
        held_out_pictures=summary["final"]["count"],
        results=results,
    )
    print(json.dumps(record["results"], indent=1))
    return 0


if __name__ == "__main__":
    end_with(main)
