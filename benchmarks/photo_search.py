# SPDX-License-Identifier: Apache-2.0
"""Does a search for a distorted copy of a photograph find the photograph first?

    python -m benchmarks.photo_search --photos DIR --checkpoint_path FILE [--eval_image_size 48]

Makes six copies of each photograph (src/tools/make_copies.py), builds an index of the originals and searches
it for every copy (src/tools/search.py), all by their commands. Writes benchmarks/records/photo_search.json
and docs/multigrain_search.png: a query of each kind, of six photographs. The bar: at least 95 % of the plain
kinds of copies find their original first.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import RECORDS, ROOT, end_with, parser, write_record
from benchmarks.runs import shrink_picture
from src.data.folders import find_in
from src.retrieval.copies import FIRST_BLOCK, KINDS

RECORD = RECORDS / "photo_search.json"
SHEET = ROOT / "docs" / "multigrain_search.png"
BAR = 95.0


def tool(name: str, *words: object) -> str:
    """The last line that `python -m src.tools.NAME` prints."""
    command = [sys.executable, "-m", f"src.tools.{name}", *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return ended.stdout.splitlines()[-1]


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--photos", required=True, type=Path)
    flags.add_argument(
        "--checkpoint_path", required=True, type=Path, help="white.ckpt of a run of multigrain_joint.py"
    )
    flags.add_argument("--eval_image_size", type=int, default=48, help="longer side, in pixels")
    own = flags.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        copies, index = Path(folder) / "copies", Path(folder) / "index"
        tool("make_copies", own.photos.resolve(), copies)
        keys = ("--checkpoint_path", own.checkpoint_path.resolve(), "--eval_image_size", own.eval_image_size)
        built = json.loads(tool("search", "build", copies / "original", "--index", index, *keys))
        started = time.perf_counter()
        answer = json.loads(tool("search", "search", index, *(copies / kind for kind in KINDS), "--json"))
        seconds = time.perf_counter() - started
        right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for result in answer["results"]:
            query, first = Path(result["query"]), Path(result["found"][0]["file"])
            right[query.parent.name].append(int(first.stem) // 100 == int(query.stem) // 100)
        shown = [
            copies / kind / f"{FIRST_BLOCK + 2000 * place + place + 1}.jpg"
            for place, kind in enumerate(KINDS)
        ]
        tool("search", "search", index, *shown, "--top", 3, "--sheet", SHEET)
    shrink_picture(SHEET)
    first = {kind: 100 * statistics.mean(found) for kind, found in right.items()}
    plain = statistics.mean(share for kind, share in first.items() if kind != "strong")
    record = write_record(
        RECORD,
        question="share of distorted copies of photographs whose original is the first of all found",
        command=f"python -m benchmarks.photo_search --photos DIR --checkpoint_path FILE "
        f"--eval_image_size {own.eval_image_size}",
        photographs=len(find_in(own.photos).files),
        index=built,
        queries=len(answer["results"]),
        search_seconds=round(seconds, 1),
        original_first_percent_by_kind={kind: round(share, 1) for kind, share in first.items()},
        original_first_percent_plain_kinds=round(plain, 2),
        original_first_percent_all_kinds=round(statistics.mean(first.values()), 2),
        bar=BAR,
        bar_met=plain >= BAR,
    )
    print(json.dumps(record, indent=1))
    return 0 if record["bar_met"] else 1


if __name__ == "__main__":
    end_with(main)
