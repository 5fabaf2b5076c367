"""Does `eval.py` take a ResNet-50 by torchvision's names, and photographs at 224 and, whole, at 500 pixels?

    python -m benchmarks.photo_eval --photos DIR

The weights are random, in torchvision's names and layout, with a class for each photograph: what is shown is
that every photograph is read, resized and counted, and how long the command takes, from its start to its end.
In a folder of classes made by links each photograph is the only one of its class, so top-1 is that of chance.
Writes benchmarks/records/photo_eval.json. The bar: both evaluations count every photograph.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, ROOT, parser, write_record
from src.data.folders import find_in
from src.zoo import create_network

RECORD = RECORDS / "photo_eval.json"
TORCHVISION = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
SIZES = {
    "224": ("--eval_image_size", "224"),
    "500_whole": ("--eval_image_size", "500", "--eval_crop", "whole"),
}


def write_weights(path: Path, *, classes: int) -> None:
    """A new ResNet-50 as torchvision's `state_dict` has it, with the counters of its normalisations."""
    arrays = {}
    for parameter in create_network("multigrain_resnet50", num_classes=classes).get_parameters():
        prefix, _, leaf = parameter.name.rpartition(".")
        arrays[f"{prefix}.{TORCHVISION.get(leaf, leaf)}"] = parameter.asnumpy()
        if leaf == "moving_variance":
            arrays[f"{prefix}.num_batches_tracked"] = np.array(0)
    np.savez(path, **arrays)


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--photos", required=True, type=Path, help="a folder of photographs")
    own = flags.parse_args()
    files = [Path(file).resolve() for file in find_in(own.photos).files]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data, weights = Path(folder) / "data", Path(folder) / "resnet50.npz"
        for number, file in enumerate(files):
            for split in ("train", "val"):
                link = data / split / f"{number:03d}" / file.name
                link.parent.mkdir(parents=True)
                link.symlink_to(file)
        write_weights(weights, classes=len(files))
        for name, how in SIZES.items():
            command = [
                sys.executable, "eval.py", "--checkpoint_path", str(weights), "--config_path",
                "configs/multigrain/resnet50_imagenet.yaml", "--pooling_exponent", "1", "--data_path",
                str(data), *how,
            ]  # fmt: skip
            began = time.perf_counter()
            ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            seconds = time.perf_counter() - began
            answer = json.loads(ended.stdout.splitlines()[-1])
            results[name] = {
                "count": answer["count"],
                "right": round(answer["top1"] * answer["count"] / 100),
                "seconds": round(seconds, 1),
                "images_per_second": round(answer["count"] / seconds, 2),
            }
            print(name, results[name], flush=True)
    record = write_record(
        RECORD,
        question=f"eval.py of a random ResNet-50 by torchvision's names on {len(files)} photographs",
        command="python -m benchmarks.photo_eval --photos DIR",
        photographs=len(files),
        **results,
        bar="every photograph is counted at both sizes",
        bar_met=all(result["count"] == len(files) for result in results.values()),
    )
    return 0 if record["bar_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
