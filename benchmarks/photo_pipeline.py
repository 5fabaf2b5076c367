# SPDX-License-Identifier: Apache-2.0
"""Pictures from files and from MindRecord against a bare loop of OpenCV, see `input_pipeline.py --photos`."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from benchmarks.record import spread
from benchmarks.turns import compare, rates_in_turns
from src.data.augment.colour import ColourChange
from src.data.batches import TrainBatches
from src.data.crops import PictureCrops
from src.data.mindrecord import MindRecordImages, open_mindrecord
from src.data.normalise import Normalise
from src.data.order import Order
from src.data.prepare.mindrecord import write_mindrecord
from src.data.sources import ImageFiles, open_split

QUESTION = "photographs a second that one core makes into a network's input, from JPEG files and MindRecord"
SIZES = (224, 192, 160)
BATCH_SIZE, EPOCHS, SHARDS = 25, 3, 4
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
JITTER = (0.4, 0.4, 0.4, 0.0)
BAR_SIZE, BAR_TO_BARE_LOOP, BAR_TO_FOLDER = 224, 0.95, 1.0


def run_batches(
    source: ImageFiles | MindRecordImages, size: int, *, normalised: bool = True
) -> Callable[[], int]:
    """Each call prepares the next epochs, with one thread."""
    crops = PictureCrops(
        source,
        size,
        colour=ColourChange(jitter=JITTER),
        normalise=Normalise(MEAN, STD) if normalised else None,
    )
    order = Order(len(source), batch_size=min(BATCH_SIZE, len(source)), seed=0)
    batches = TrainBatches(order, crops, workers=1)
    steps = len(batches) * EPOCHS
    starts = itertools.count(0, steps)

    def run() -> int:
        start = next(starts)
        return sum(len(images) for images, _ in batches.batches(start, start + steps))

    return run


def _by_opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def run_bare_loop(source: ImageFiles, size: int, decode: Callable[[bytes], np.ndarray]) -> int:
    cv2.setNumThreads(1)
    for _ in range(EPOCHS):
        for file in source.files:
            with open(file, "rb", buffering=0) as opened:
                cv2.resize(decode(opened.read()), (size, size))
    return EPOCHS * len(source)


def _compare_at(size: int, files: ImageFiles, record: MindRecordImages, repeats: int) -> dict:
    print(f"{size} x {size}")
    rates = rates_in_turns(
        {
            "folder": run_batches(files, size),
            "bare_loop": lambda: run_bare_loop(files, size, _by_opencv),
            "bare_loop_simplejpeg": lambda: run_bare_loop(files, size, simplejpeg.decode_jpeg),
            "mindrecord": run_batches(record, size),
            "folder_without_normalising": run_batches(files, size, normalised=False),
        },
        repeats,
    )
    return {
        **{f"{name}_images_per_second": spread(values) for name, values in rates.items()},
        "folder_to_bare_loop": compare(rates["folder"], rates["bare_loop"]),
        "folder_to_bare_loop_simplejpeg": compare(rates["folder"], rates["bare_loop_simplejpeg"]),
        "folder_without_normalising_to_bare_loop": compare(
            rates["folder_without_normalising"], rates["bare_loop"]
        ),
        "mindrecord_to_folder": compare(rates["mindrecord"], rates["folder"]),
    }


def measure(photos: Path, repeats: int) -> dict:
    """What the record says of the settings, results and bars."""
    files = open_split(photos, "train", dataset="folder")
    sides = np.array([files.read(index).shape[:2] for index in range(len(files))])
    with tempfile.TemporaryDirectory() as temporary:
        write_mindrecord({"train": files}, Path(temporary), root=photos, shards=SHARDS)
        record = open_mindrecord(Path(temporary), "train")
        results = {str(size): _compare_at(size, files, record, repeats) for size in SIZES}
    bar = results[str(BAR_SIZE)]
    return {
        "settings": {
            "photographs": len(files), "megapixels_mean": round(float(sides.prod(1).mean() / 1e6), 3),
            "epochs_a_repeat": EPOCHS, "batch_size": BATCH_SIZE, "workers": 1, "colour_jitter": JITTER,
            "folder": "PictureCrops: random_resized crop, bilinear, flip, colour jitter, normalised",
            "mindrecord": f"the same from {SHARDS} shards",
            "bare_loop": "read, cv2.imdecode (or simplejpeg, as ours), cv2.resize of the whole",
        },
        "results": results,
        "bars": {
            f"folder_to_bare_loop_at_{BAR_SIZE}": BAR_TO_BARE_LOOP,
            f"mindrecord_to_folder_at_{BAR_SIZE}": BAR_TO_FOLDER,
        },
        "bars_met": bar["folder_to_bare_loop"]["ratio_of_medians"] >= BAR_TO_BARE_LOOP
        and bar["mindrecord_to_folder"]["ratio_of_medians"] >= BAR_TO_FOLDER,
    }  # fmt: skip
