"""How many images a second one core prepares for training: the project's batches against mindspore.dataset.

Both take 50,000 images in CIFAR-10's layout (random ones unless --data_path is given), crop them with a
reflected border of 4 pixels, flip, normalise and cut a hole of 8x8, in batches of 512: `TrainBatches` in
numpy, a whole batch at a time, from memory; `mindspore.dataset` with its own reader and C++ operators, image
by image. The process is pinned to one core, and the two take turns.

    python -m benchmarks.input_pipeline [--data_path DIR] [--repeats 7] [--core 0] [--record FILE]
"""

import argparse
import datetime
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from src.data.cifar10 import ImageSet, find_cifar10, read_cifar10, write_cifar10
from src.data.loader import TrainBatches
from src.model_utils.files import write_json

BATCH_SIZE = 512
MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)
CROP_PAD, CUTOUT = 4, 8
BAR_IMAGES_PER_SECOND, BAR_RATIO = 100_000, 5
RECORD = Path(__file__).parent / "records" / "input_pipeline.json"


def write_random_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = (
        ImageSet(
            rng.integers(0, 256, (count, 3, 32, 32), np.uint8), np.arange(count) % 10, tuple("0123456789")
        )
        for count in (50_000, 10_000)
    )
    write_cifar10(folder, train, test)


def run_train_batches(batches: TrainBatches, epoch: int) -> int:
    """Prepares one epoch; returns the number of images."""
    return sum(len(batches.batch(epoch, index)[0]) for index in range(len(batches)))


def run_mindspore_dataset(folder: Path) -> int:
    """Prepares one epoch; returns the number of images."""
    import mindspore.dataset as ds
    from mindspore.dataset import vision

    ds.config.set_num_parallel_workers(1)
    operations = [
        vision.RandomCrop(32, padding=CROP_PAD, padding_mode=vision.Border.REFLECT),
        vision.RandomHorizontalFlip(0.5),
        vision.Normalize(MEAN, STD),
        vision.CutOut(CUTOUT),
        vision.HWC2CHW(),
    ]
    data = ds.Cifar10Dataset(str(folder), usage="train", shuffle=True)
    data = data.map(operations, "image").batch(BATCH_SIZE, drop_remainder=True)
    batches = data.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return sum(len(images) for images, _ in batches)


def images_per_second(run: Callable[..., int], *arguments: object) -> float:
    start = time.perf_counter()
    count = run(*arguments)
    return count / (time.perf_counter() - start)


def spread(values: Sequence[float], digits: int = 0) -> dict[str, float]:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {"n": len(values), **{name: round(value, digits or None) for name, value in figures.items()}}


def peak_memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def measure(folder: Path, repeats: int) -> dict:
    images = read_cifar10(folder, "train")
    batches = TrainBatches(
        images, batch_size=BATCH_SIZE, seed=0, mean=MEAN, std=STD, crop_pad=CROP_PAD, cutout=CUTOUT
    )
    run_train_batches(batches, 0)
    peak = peak_memory_mb()
    run_mindspore_dataset(folder)
    ours, theirs = [], []
    for epoch in range(1, repeats + 1):
        ours.append(images_per_second(run_train_batches, batches, epoch))
        theirs.append(images_per_second(run_mindspore_dataset, folder))
        print(f"repeat {epoch}: {ours[-1]:,.0f} against {theirs[-1]:,.0f} images/s")
    return {
        "train_batches_images_per_second": spread(ours),
        "mindspore_dataset_images_per_second": spread(theirs),
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(theirs), 2),
        "ratio_by_repeat": spread([a / b for a, b in zip(ours, theirs, strict=True)], 2),
        "peak_memory_mb_without_mindspore": peak,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", help="a data set in the CIFAR-10 binary layout; random images without")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--core", type=int, default=0, help="the core to run on")
    parser.add_argument("--record", type=Path, default=RECORD, help="where to write the record")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})

    with tempfile.TemporaryDirectory() as temporary:
        if options.data_path is None:
            write_random_images(Path(temporary))
        results = measure(find_cifar10(options.data_path or temporary), options.repeats)
    rate, ratio = results["train_batches_images_per_second"]["median"], results["ratio_of_medians"]
    record = {
        "question": "images a second that one core crops, flips, normalises and cuts holes into",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": " ".join(["python -m benchmarks.input_pipeline", *sys.argv[1:]]),
        "hardware": {"processor": processor(), "cores_used": 1},
        "versions": {
            "python": platform.python_version(), "numpy": np.__version__, "mindspore": version("mindspore"),
        },
        "settings": {
            "images": "random" if options.data_path is None else "data_path",
            "batch_size": BATCH_SIZE, "crop_pad": CROP_PAD, "flip": "random", "cutout": CUTOUT,
        },
        "results": results,
        "bars": {"images_per_second": BAR_IMAGES_PER_SECOND, "ratio": BAR_RATIO},
        "bars_met": rate >= BAR_IMAGES_PER_SECOND and ratio >= BAR_RATIO,
    }  # fmt: skip
    write_json(options.record, record)
    print(f"{rate:,.0f} images/s, {ratio} times mindspore.dataset; record in {options.record}")
    return 0 if record["bars_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
