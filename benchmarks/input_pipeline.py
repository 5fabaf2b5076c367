# SPDX-License-Identifier: Apache-2.0
"""How many images a second one core prepares for training: against mindspore.dataset, and against OpenCV.

    python -m benchmarks.input_pipeline [--data_path DIR] [--repeats 7] [--core 0] [--record FILE]

Small images in memory: 50,000 in CIFAR-10's layout (random ones unless --data_path is given) are cropped with
a reflected border of 4 pixels, flipped, normalised and get a hole of 8x8, in batches of 512: by
`PadCrops` in numpy, many at a time; by `mindspore.dataset` with its own reader and C++
operators, image by image.

    python -m benchmarks.input_pipeline --photos DIR

Photographs in class folders: cropped at random, resized, flipped and jittered by `PictureCrops` with one
thread and normalised, as for training on a CPU, from the files and from MindRecord; read, decoded and
resized in a bare loop of `cv2.imdecode` and `cv2.resize`.

The process is pinned to one core, and they take turns.
"""

import itertools
import os
import resource
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, end_with, parser, write_record
from benchmarks.turns import take_turns
from src.data.batches import TrainBatches
from src.data.binary import CIFAR10, ImageSet, find_set, read_set, write_cifar10
from src.data.crops import PadCrops
from src.data.normalise import Normalise
from src.data.order import Order

QUESTION = "images a second that one core crops, flips, normalises and cuts holes into"
BATCH_SIZE = 512
MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)
CROP_PAD, CUTOUT = 4, 8
BAR_IMAGES_PER_SECOND, BAR_RATIO = 100_000, 5


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
    steps = batches.batches(epoch * len(batches), (epoch + 1) * len(batches))
    return sum(len(images) for images, _ in steps)


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


def measure(data_path: str | None, repeats: int) -> dict:
    """What the record says of the settings, results and bars."""
    with tempfile.TemporaryDirectory() as temporary:
        if data_path is None:
            write_random_images(Path(temporary))
        folder = find_set(CIFAR10, Path(data_path or temporary))
        images = read_set(CIFAR10, folder, "train")
        batches = TrainBatches(
            Order(len(images), batch_size=BATCH_SIZE, seed=0),
            PadCrops(images, Normalise(MEAN, STD), crop_pad=CROP_PAD, cutout=CUTOUT),
            workers=1,
        )
        run_train_batches(batches, 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        epochs = itertools.count(1)
        results = take_turns(
            lambda: run_train_batches(batches, next(epochs)), lambda: run_mindspore_dataset(folder), repeats
        )
    rate = results["ours_images_per_second"]["median"]
    return {
        "settings": {
            "images": "random" if data_path is None else "data_path", "batch_size": BATCH_SIZE,
            "crop_pad": CROP_PAD, "flip": "random", "cutout": CUTOUT,
            "ours": "PadCrops", "theirs": "mindspore.dataset",
        },
        "results": {**results, "peak_memory_mb_without_mindspore": peak},
        "bars": {"images_per_second": BAR_IMAGES_PER_SECOND, "ratio": BAR_RATIO},
        "bars_met": rate >= BAR_IMAGES_PER_SECOND and results["ratio_of_medians"] >= BAR_RATIO,
    }  # fmt: skip


def main() -> int:
    flags = parser(__doc__)
    data = flags.add_mutually_exclusive_group()
    data.add_argument("--data_path", help="a data set in the CIFAR-10 binary layout; random images without")
    data.add_argument(
        "--photos", type=Path, help="measure the folder pipeline on these class folders instead"
    )
    flags.add_argument("--repeats", type=int, default=7)
    flags.add_argument("--core", type=int, default=0, help="the core to run on")
    flags.add_argument("--record", type=Path, help="where to write the record, in benchmarks/records without")
    options = flags.parse_args()
    os.sched_setaffinity(0, {options.core})

    if options.photos:
        from benchmarks import photo_pipeline

        question, measured = photo_pipeline.QUESTION, photo_pipeline.measure(options.photos, options.repeats)
    else:
        question, measured = QUESTION, measure(options.data_path, options.repeats)
    # Imported late, as it is no part of the memory that is measured.

    command = ["python -m benchmarks.input_pipeline"]
    command += ["--photos DIR"] if options.photos else ["--data_path DIR"] if options.data_path else []
    name = "input_pipeline_photos.json" if options.photos else "input_pipeline.json"
    path = options.record or RECORDS / name
    record = write_record(
        path,
        question=question,
        command=" ".join([*command, f"--repeats {options.repeats}"]),
        **measured,
    )
    print(f"bars {'met' if record['bars_met'] else 'not met'}; record in {path}")
    return 0 if record["bars_met"] else 1


if __name__ == "__main__":
    end_with(main)
