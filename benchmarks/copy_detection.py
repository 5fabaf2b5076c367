# SPDX-License-Identifier: Apache-2.0
"""Does the joint loss make an embedding that finds copies, at the same class accuracy?

    python -m benchmarks.copy_detection --data DIR

Trains by configs/multigrain/tiny_imagenet.yaml, for each seed: MultiGrain (lambda 0.5, repeated augmentation
with N 3), and with nothing but the classification loss (lambda 1) the twins `repeated` (N 3) and `plain`
(N 1). All see the same number of images. A run that is finished already is not repeated. Of each last
checkpoint: top-1 on the validation images, and by eval.py the mean average precision of finding, among all
validation images, the original of a distorted copy (src/retrieval/copies.py), for each kind of copy. Writes
benchmarks/records/copy_detection.json and a sheet for each network of the first seed, with the same queries,
docs/copy_detection_<network>.png. The bars, against the twin that differs in lambda alone (means over the
seeds): mean average precision over the five plain kinds at least 5 points higher, top-1 not lower by more
than 1 point. `plain` sees three times as many different images, and is there to show what that is worth.
"""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, ROOT, parser, spread, write_record
from benchmarks.runs import shrink_picture, train
from src.common.files import new_folder
from src.data.folders import find_in
from src.retrieval.copies import KINDS, write_copies
from src.retrieval.sets import open_retrieval_set
from src.retrieval.task import RetrievalSet

CONFIG = "multigrain/tiny_imagenet.yaml"
RECORD = RECORDS / "copy_detection.json"
PLAIN_KINDS = tuple(kind for kind in KINDS if kind != "strong")
NETWORKS = {
    "multigrain": {"classification_weight": 0.5, "repetitions": 3},
    "repeated": {"classification_weight": 1.0, "repetitions": 3},
    "plain": {"classification_weight": 1.0, "repetitions": 1},
}
MAP_POINTS, TOP1_POINTS = 5.0, -1.0
COLUMNS = 6  # of a sheet


def make_set(files: Sequence[str], folder: Path, copies: int) -> dict[str, Path]:
    """The flags of eval.py: originals and their copies of all kinds, and all other images as distractors."""
    order = np.random.default_rng(0).permutation(len(files))
    originals, others = ([files[index] for index in part] for part in np.split(order, [copies]))

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "distractors").exists():
        with new_folder(folder / "distractors") as temporary:
            for file in others:
                shutil.copyfile(file, temporary / f"{Path(file).parent.name}_{Path(file).name}")
    if not (folder / "copies").exists():
        write_copies(originals, folder / "copies", seed=0)
    return {"data_path": folder / "copies", "distractors": folder / "distractors"}


def mean_average_precision(checkpoint: Path, where: dict[str, Path]) -> dict[str, float]:
    """Of each kind of copies, in per cent, by eval.py."""
    words = [word for name, path in where.items() for word in (f"--{name}", str(path))]
    command = [
        sys.executable, "eval.py", "--checkpoint_path", str(checkpoint),
        "--task", "retrieval", "--protocol", "copydays", *words,
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])["mAP_by_kind"]


def draw(path: Path, checkpoint: Path, pictures: RetrievalSet) -> None:
    """A row a kind, each of another picture; the same rows for every network."""
    from src.retrieval.embedding import Embedder
    from src.retrieval.scores import top_results
    from src.retrieval.sheets import Shown, draw_sheet
    from src.trained import open_trained

    embedder = Embedder.from_trained(open_trained(checkpoint, {}))

    def embed(pictures):
        embedded = embedder.embed((picture, picture.read) for picture in pictures)
        return np.stack([row for _, row in embedded])

    database = embed(pictures.database)
    asked = [pictures.kinds.index(kind) + place for place, kind in enumerate(KINDS)]
    queries = [pictures.queries[number] for number in asked]
    rows = []
    for number, query, embedding in zip(asked, queries, embed(queries), strict=True):
        similarity = database @ embedding
        own = pictures.truths[""].positives[number]
        results = [
            Shown(
                pictures.database[found].read(),
                "original" if found in own else Path(pictures.database[found].file).name,
                float(similarity[found]),
                bool(found in own),
            )
            for found in top_results(similarity, own, np.empty(0, np.int64), COLUMNS)
        ]
        rows.append((Shown(query.read(), pictures.kinds[number]), results))
    draw_sheet(path, rows, columns=COLUMNS)
    shrink_picture(path)


def compare(results: dict[str, list[dict]], twin: str) -> dict:
    """MultiGrain minus a twin in points, and whether the bars are met."""

    def gains(name: str) -> list[float]:
        return [a[name] - b[name] for a, b in zip(results["multigrain"], results[twin], strict=True)]

    precision, top1 = gains("map"), gains("top1")
    met = statistics.mean(precision) >= MAP_POINTS and statistics.mean(top1) >= TOP1_POINTS
    return {"map_points": spread(precision), "top1_points": spread(top1), "bars_met": met}


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, type=Path, help="Tiny-ImageNet's 40 classes: train/, val/")
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--twins", nargs="+", choices=tuple(NETWORKS)[1:], default=tuple(NETWORKS)[1:])
    flags.add_argument("--copies", type=int, default=400, help="validation images of which copies are made")
    flags.add_argument("--output_path", type=Path, default=Path("runs/copy_detection"))
    own = flags.parse_args()

    folder, data = own.output_path.resolve(), own.data.resolve()
    files = find_in(data / "val").files
    where = make_set(files, folder / f"copies-{own.copies}", own.copies)
    results: dict[str, list[dict]] = {name: [] for name in ("multigrain", *own.twins)}
    for seed in range(own.seeds):
        for name, rows in results.items():
            run = folder / f"{name}-{seed}"
            summary = train(CONFIG, run, data_path=data, seed=seed, **NETWORKS[name])
            checkpoint = run / "checkpoints" / "last.ckpt"
            by_kind = mean_average_precision(checkpoint, where)
            rows.append(
                {
                    "seed": seed,
                    "top1": summary["final"]["top1"],
                    "map": statistics.mean(by_kind[kind] for kind in PLAIN_KINDS),
                    "map_by_kind": by_kind,
                    "images_seen": summary["images"],
                    "parameters": summary["parameters"],
                }
            )
            print(json.dumps({"network": name, **rows[-1]}), flush=True)
    opened = open_retrieval_set(where["data_path"], protocol="copydays", distractors=where["distractors"])
    for name in results:
        checkpoint = folder / f"{name}-0" / "checkpoints" / "last.ckpt"
        draw(ROOT / "docs" / f"copy_detection_{name}.png", checkpoint, opened)
    against = {twin: compare(results, twin) for twin in own.twins}
    record = write_record(
        RECORD,
        question="finding the original of a distorted copy, and top-1: the joint loss, or classification",
        command="python -m benchmarks.copy_detection --data DIR",
        config=f"configs/{CONFIG}",
        networks=NETWORKS,
        images_evaluated=len(files),
        copies_of_each_kind=own.copies,
        results=results,
        mean={
            name: {
                "top1_percent": spread([row["top1"] for row in rows]),
                "map_percent": spread([row["map"] for row in rows]),
                "map_percent_by_kind": {
                    kind: spread([row["map_by_kind"][kind] for row in rows]) for kind in KINDS
                },
            }
            for name, rows in results.items()
        },
        multigrain_minus=against,
        bars={"map_points": MAP_POINTS, "top1_points": TOP1_POINTS},
    )
    print(json.dumps(record, indent=1))
    return 0 if against.get("repeated", {}).get("bars_met") else 1


if __name__ == "__main__":
    sys.exit(main())
