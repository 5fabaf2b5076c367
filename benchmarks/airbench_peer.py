# SPDX-License-Identifier: Apache-2.0
"""One run of airbench94_muon (Keller Jordan, MIT) on a CPU, as it stands but for what needs a GPU.

    VENV/bin/python -m benchmarks.airbench_peer airbench94_muon.py DATA [--seed 0]

The file is that of github.com/KellerJordan/cifar10-airbench. Taken out of it are float16 and bfloat16, the
compiler and the timer of CUDA, and torchvision, of which it uses one formula; the memory stays channels-last.
DATA is a folder with CIFAR-10's binary files in it. Prints one JSON object: top-1 in per cent with and
without test views, and seconds of training and of test views, as the file itself counts them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

# What the file says -> what a CPU can do. Each must be found, or it is another version of the file.
CHANGES = {
    "import torchvision\n": "",
    "import torchvision.transforms as T\n": "",
    "with open(sys.argv[0]) as f:\n    code = f.read()\n": "",
    "@torch.compile\n": "",
    "X = G.bfloat16()": "X = G.clone()",
    'torch.device("cuda")': 'torch.device("cpu")',
    "self.images.half()": "self.images.float()",
    "mod.half()": "mod.float()",
    "fused=True": "fused=False",
    "torch.cuda.Event(enable_timing=True)": "Event()",
    "torch.cuda.synchronize()": "pass",
}


class Event:
    """A moment, as torch.cuda.Event has it."""

    def record(self) -> None:
        self.moment = time.perf_counter()

    def elapsed_time(self, later: "Event") -> float:
        """Milliseconds."""
        return 1e3 * (later.moment - self.moment)


class Normalize:
    """(x - mean) / std of each channel, as torchvision.transforms.Normalize."""

    def __init__(self, mean, std):
        self.mean, self.std = (values.view(1, -1, 1, 1) for values in (mean, std))

    def __call__(self, images):
        return (images - self.mean) / self.std


def definitions(file: Path) -> dict:
    """The classes and functions of the file, for a CPU."""
    text = file.read_text().split('if __name__ == "__main__":')[0]
    for old, new in CHANGES.items():
        if old not in text:
            sys.exit(f"{file} has no {old.strip()!r}: another version than this was made for")
        text = text.replace(old, new)
    names = {"Event": Event, "T": SimpleNamespace(Normalize=Normalize), "__name__": "airbench"}
    exec(compile(text, str(file), "exec"), names)
    return names


def write_sets(data: Path, folder: Path) -> None:
    """CIFAR-10's binary files as the two files that the loader reads."""
    import numpy as np
    import torch

    data = next(data.rglob("test_batch.bin")).parent
    files = {"train": sorted(data.glob("data_batch_*.bin")), "test": [data / "test_batch.bin"]}
    for split, parts in files.items():
        rows = np.concatenate([np.fromfile(part, np.uint8).reshape(-1, 3073) for part in parts])
        images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        sets = {
            "images": torch.from_numpy(np.ascontiguousarray(images)),
            "labels": torch.from_numpy(rows[:, 0].astype(np.int64)),
            "classes": list(range(10)),
        }
        torch.save(sets, folder / f"{split}.pt")


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("airbench", type=Path, help="airbench94_muon.py")
    flags.add_argument("data", type=Path, help="folder with CIFAR-10's binary files in it")
    flags.add_argument("--seed", type=int, default=0)
    own = flags.parse_args()
    import torch

    torch.manual_seed(own.seed)
    names, rows = definitions(own.airbench), []
    names["print_training_details"] = lambda variables, is_final_entry: rows.append(dict(variables))
    with tempfile.TemporaryDirectory() as folder:
        write_sets(own.data, Path(folder))
        loader = names["CifarLoader"]
        names["CifarLoader"] = lambda path, **how: loader(folder, **how)
        model = names["CifarNet"]().to(memory_format=torch.channels_last)
        views = names["main"](own.seed, model)
    trained, tested = rows[-2], rows[-1]
    answer = {
        "top1": 100 * views,
        "top1_plain": 100 * trained["val_acc"],
        "train_seconds": trained["time_seconds"],
        "views_seconds": tested["time_seconds"] - trained["time_seconds"],
        "top1_by_epoch": [100 * row["val_acc"] for row in rows[:-1]],
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
