# SPDX-License-Identifier: Apache-2.0
"""What is each trick of ResNet9 worth, at a scale for two CPU cores? For the tables of docs/resnet9.md.

    python -m benchmarks.cpu_ablation --data DIR [--output_path runs/cpu]

DIR has CIFAR-10's binary files. Trains the recipes of configs/resnet9/cpu by src/tools/ablate.py, three seeds
of each, two at a time. What is finished is not done again: call it again until it ends.

Writes benchmarks/records/cpu_NAME.json for each NAME of TABLES, and docs/resnet9_NAME.png but of VIEWS.
`table` of a record is the tool's table in Markdown (of VIEWS its last one), `effects` each recipe's
difference as text.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS, ROOT, end_with, parser, write_record
from benchmarks.runs import answer

RECIPES = Path("configs/resnet9/cpu")
FIRST = "ladder/01_dawnbench.yaml"
# name -> (recipes, what each is compared with)
TABLES = {
    "ladder": (["ladder/*.yaml"], "previous"),
    "single": ([FIRST, "single/*.yaml"], "01_dawnbench"),
    "rates": ([FIRST, "rates/*.yaml"], "01_dawnbench"),
    "networks": ([FIRST, "networks/*.yaml"], "01_dawnbench"),
    "views": (["ladder/09_ema.yaml"], "09_ema"),
}
VIEWS = {"views": "flip,six,six_equal,six_equal:0.25"}
SEEDS = 3


def recipes(patterns: list[str]) -> list[str]:
    return [str(path.relative_to(ROOT)) for one in patterns for path in sorted((ROOT / RECIPES).glob(one))]


def effects(facts: dict[str, Any]) -> dict[str, str]:
    """Points of top-1 that each recipe differs by, with the 95 % interval; of test views by kind.

    A recipe that is evaluated in several views counts by its own. Names are such as a page's marker can have.
    """
    rows = {row["recipe"]: row for row in reversed(facts["rows"]) if row["difference"] is not None}
    rows |= {row["views"]: row for row in facts["views"] if facts["baseline"] == row["recipe"]}
    return {
        re.sub(r"[.:]", "_", name): "{:+.1f} ({:+.1f} to {:+.1f})".format(row["difference"], *row["interval"])
        for name, row in sorted(rows.items())
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10's binary files")
    flags.add_argument("--output_path", type=Path, default=Path("runs/cpu"), help="folder of all runs")
    flags.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each (2)")
    own = flags.parse_args()
    folder = own.output_path.resolve()
    keys = ["--data_path", str(own.data.resolve()), "--output_path", str(folder)]
    every = dict.fromkeys(path for patterns, _ in TABLES.values() for path in recipes(patterns))
    for paths, more in (
        (every, []),
        *((recipes(TABLES[name][0]), ["--views", VIEWS[name]]) for name in VIEWS),
    ):
        words = [*paths, "--seeds", SEEDS, "--jobs", own.jobs, *more, *keys]
        if subprocess.run([sys.executable, "-m", "src.tools.ablate", *map(str, words)], cwd=ROOT).returncode:
            return 1
    for name, (patterns, baseline) in TABLES.items():
        words = [*recipes(patterns), "--table", "--name", name, "--baseline", baseline, *keys]
        words += ["--views", VIEWS[name]] if name in VIEWS else []
        facts = answer("-m", "src.tools.ablate", *words)
        write_record(
            RECORDS / f"cpu_{name}.json",
            question=f"ResNet9's recipes at CPU scale, {name}: top-1 on CIFAR-10, differences, seeds needed",
            command="python -m benchmarks.cpu_ablation --data DIR",
            table=(folder / f"{name}.md").read_text().strip().split("\n\n")[-1 if name in VIEWS else 0],
            effects=effects(facts),
            **facts,
        )
        if name not in VIEWS:  # its picture would have one line
            shutil.copyfile(folder / f"{name}.png", ROOT / "docs" / f"resnet9_{name}.png")
    return 0


if __name__ == "__main__":
    end_with(main)
