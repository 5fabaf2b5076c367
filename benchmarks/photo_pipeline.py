"""The folder pipeline against a bare loop of OpenCV, see `input_pipeline.py --photos`."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.turns import take_turns
from src.data.picture_batches import PictureBatches
from src.data.sources import ImageFiles, open_split

QUESTION = "photographs a second that one core reads, decodes, crops at random, resizes and flips"
SIZES = (224, 192, 160)
BATCH_SIZE, EPOCHS = 25, 3
BAR_SIZE, BAR_RATIO = 224, 0.9


def run_batches(source: ImageFiles, size: int) -> Callable[[], int]:
    """Each call prepares the next epochs, with one thread."""
    batches = PictureBatches(
        source, batch_size=min(BATCH_SIZE, len(source)), seed=0, image_size=size, flip="random", workers=1
    )
    steps = len(batches) * EPOCHS
    starts = itertools.count(0, steps)

    def run() -> int:
        start = next(starts)
        return sum(len(images) for images, _ in batches.batches(start, start + steps))

    return run


def run_bare_loop(source: ImageFiles, size: int) -> int:
    cv2.setNumThreads(1)
    for _ in range(EPOCHS):
        for file in source.files:
            with open(file, "rb", buffering=0) as opened:
                data = np.frombuffer(opened.read(), np.uint8)
            cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (size, size))
    return EPOCHS * len(source)


def measure(photos: Path, repeats: int) -> dict:
    """What the record says of the settings, results and bars."""
    source = open_split(photos, "train", dataset="folder")
    sides = np.array([source.read(index).shape[:2] for index in range(len(source))])
    results = {}
    for size in SIZES:
        print(f"{size} x {size}")
        results[str(size)] = take_turns(
            run_batches(source, size), lambda size=size: run_bare_loop(source, size), repeats
        )
    return {
        "settings": {
            "photographs": len(source), "megapixels_mean": round(float(sides.prod(1).mean() / 1e6), 3),
            "epochs_a_repeat": EPOCHS, "batch_size": BATCH_SIZE, "workers": 1,
            "ours": "PictureBatches: random_resized crop, bilinear, random flip",
            "theirs": "read, cv2.imdecode, cv2.resize of the whole",
        },
        "results": results,
        "bars": {f"ratio_at_{BAR_SIZE}": BAR_RATIO},
        "bars_met": results[str(BAR_SIZE)]["ratio_of_medians"] >= BAR_RATIO,
    }  # fmt: skip
