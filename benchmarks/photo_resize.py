# SPDX-License-Identifier: Apache-2.0
"""What evaluation and training see of photographs: how near to Pillow, and what each step of it costs.

    python -m benchmarks.photo_resize --photos DIR [--checkpoint_path FILE] [--repeats 7] [--core 0]

- How far a photograph is from Pillow's antialiased one, for `bilinear` and for `tf_bilinear`, as evaluation
  at 224 pixels shows it; and how far each photograph is from a copy of a quarter of its size, in grey levels
  and, with a checkpoint, in embeddings and top-1 classes.
- The process time of evaluation, read and decoded, in turns: by `bilinear`, by `tf_bilinear`, which does what
  evaluation did before antialiasing, and by Pillow's resize.
- The process time of random crops: as training makes them, antialiased at any factor, without the early stop
  below the crop, and without the reduction in the discrete cosine transform; and of a bare loop of
  `cv2.imdecode` and `cv2.resize`.

The process is pinned to one core. Writes benchmarks/records/photo_resize.json. The bars: at most 0.5 grey
levels from Pillow, and at least 0.9 of the rate of `tf_bilinear`.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.record import RECORDS, end_with, parser, spread, write_record
from benchmarks.turns import compare
from src.data import resize as geometry
from src.data.decode import decode, decode_resized
from src.data.folders import find_in
from src.data.preparation import Preparation

RECORD = RECORDS / "photo_resize.json"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZE, PERCENTAGE, SMALLER, COPY_SIZE = 224, 0.875, 4, 64
CROP_SIZES = (224, 96, 32)
AREA, RATIO, EPOCHS = (0.08, 1.0), (3 / 4, 4 / 3), 4
BAR_GREY_LEVELS, BAR_RATE = 0.5, 0.9


def preparation(interpolation: str, size: int = SIZE) -> Preparation:
    return Preparation(size, MEAN, STD, "centre", interpolation, PERCENTAGE)


def by_pillow(image: np.ndarray) -> np.ndarray:
    """Resized as a whole by Pillow and cut."""
    plan = preparation("bilinear").plan_square(*image.shape[:2])
    resized = Image.fromarray(image).resize((plan.width, plan.height), Image.Resampling.BILINEAR)
    return geometry.cut(np.asarray(resized), plan.part)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def agreement(photos: list[bytes], checkpoint: Path | None) -> dict:
    """Each photograph against its copy of a quarter of the size, for both ways of resizing."""
    large = [data for data in photos if min(decode(data).shape[:2]) >= SMALLER * COPY_SIZE]
    found = {"photographs": len(large), "size": COPY_SIZE, "smaller": SMALLER}
    trained = None
    if checkpoint:
        from src.trained import open_trained

        trained = open_trained(checkpoint, {"device_target": "CPU"})
        found["size"] = trained.recipe.image_size
    for interpolation in ("bilinear", "tf_bilinear"):
        how = preparation(interpolation, found["size"])
        pairs = []
        for data in large:
            image = decode(data)
            side = tuple(length // SMALLER for length in image.shape[:2])
            copy = np.asarray(Image.fromarray(image).resize(side[::-1], Image.Resampling.LANCZOS))
            pairs.append((how.read_square(data), how.square(copy)))
        found[interpolation] = {
            "grey_levels_apart": round(float(np.mean([apart(*pair) for pair in pairs])), 2)
        }
        if trained:
            found[interpolation] |= answers(trained, pairs)
    return found


def answers(trained, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """How near a network's embeddings of the pairs are, and how many of its first choices agree."""
    import mindspore as ms

    normalise = trained.recipe.preparation.normalise
    sides = [
        ms.Tensor(np.stack([normalise(picture) for picture in side])) for side in zip(*pairs, strict=True)
    ]
    embeddings = [trained.network.embed(side).asnumpy().astype(np.float64) for side in sides]
    lengths = [np.linalg.norm(rows, axis=1) for rows in embeddings]
    cosines = (embeddings[0] * embeddings[1]).sum(1) / (lengths[0] * lengths[1])
    choices = [trained.network(side).asnumpy().argmax(1) for side in sides]
    return {
        "cosine_mean": round(float(cosines.mean()), 4),
        "cosine_lowest": round(float(cosines.min()), 4),
        "top1_agree_percent": round(100 * float((choices[0] == choices[1]).mean()), 1),
    }


def milliseconds_in_turns(
    runs: Mapping[str, Callable[[], object]], pictures: int, repeats: int
) -> dict[str, list[float]]:
    """Process time a picture, of each repeat. Each runs once before it is timed."""
    for run in runs.values():
        run()
    took = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.process_time()
            run()
            took[name].append(1e3 * (time.process_time() - began) / pictures)
    print(", ".join(f"{name} {np.median(values):.3f} ms" for name, values in took.items()))
    return took


def evaluation(files: list[Path], repeats: int) -> dict[str, list[float]]:
    def prepared(interpolation: str) -> Callable[[], object]:
        how = preparation(interpolation)
        return lambda: [how.normalise(how.read_square(file)) for file in files]

    normalise = preparation("bilinear").normalise
    runs = {name: prepared(name) for name in ("bilinear", "tf_bilinear")}
    runs["pillow"] = lambda: [normalise(by_pillow(decode(file))) for file in files]
    return milliseconds_in_turns(runs, len(files), repeats)


class NoEarlyStop(geometry.Resizing):
    bottom = 1 << 30


class NoReduction(geometry.Resizing):
    reduction = 1


class Neither(geometry.Resizing):
    bottom, reduction = 1 << 30, 1


def crops(photos: list[bytes], size: int, repeats: int) -> dict[str, list[float]]:
    """Random crops as training makes them, antialiased at any factor, by less decoding, and a bare loop."""
    numbers = geometry.draw_boxes(np.random.default_rng(0), EPOCHS * len(photos), AREA, RATIO).T

    def run(kind: type[geometry.Resizing] = geometry.Resizing, *, is_quick: bool = True) -> None:
        for data, drawn in zip(photos * EPOCHS, numbers, strict=True):

            def plan(height: int, width: int, drawn: np.ndarray = drawn) -> geometry.Resizing:
                box = geometry.random_box(height, width, drawn, RATIO)
                return kind(*geometry.resize_box(box, size, size, "bilinear", is_quick=is_quick))

            decode_resized(data, plan)

    def run_bare_loop() -> None:
        for data in photos * EPOCHS:
            cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), (size, size))

    runs = {
        "training": run,
        "antialiased": partial(run, is_quick=False),
        "no_early_stop": partial(run, NoEarlyStop),
        "no_reduction": partial(run, NoReduction),
        "neither": partial(run, Neither),
        "bare_loop": run_bare_loop,
    }
    return milliseconds_in_turns(runs, EPOCHS * len(photos), repeats)


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--photos", required=True, type=Path, help="a folder of photographs")
    flags.add_argument("--checkpoint_path", type=Path, help="a network that is asked about copies")
    flags.add_argument("--repeats", type=int, default=7)
    flags.add_argument("--core", type=int, default=0, help="the core to run on")
    own = flags.parse_args()
    os.sched_setaffinity(0, {own.core})
    cv2.setNumThreads(1)
    files = [Path(file) for file in find_in(own.photos).files]
    photos = [file.read_bytes() for file in files]
    from_pillow = {
        name: spread([apart(preparation(name).read_square(data), by_pillow(decode(data))) for data in photos])
        for name in ("bilinear", "tf_bilinear")
    }
    took = evaluation(files, own.repeats)
    rate = compare(took["tf_bilinear"], took["bilinear"])
    decoding = {str(size): crops(photos, size, own.repeats) for size in CROP_SIZES}
    record = write_record(
        RECORD,
        question="how far evaluation is from Pillow, and what each step to the pixels costs",
        command="python -m benchmarks.photo_resize --photos DIR"
        + (" --checkpoint_path FILE" if own.checkpoint_path else ""),
        versions={
            "simplejpeg": simplejpeg.__version__,
            "pillow": Image.__version__,
            "opencv": cv2.__version__,
        },
        settings={"photographs": len(files), "size": SIZE, "crop_percentage": PERCENTAGE, "cores": 1},
        grey_levels_from_pillow=from_pillow,
        copies=agreement(photos, own.checkpoint_path),
        evaluation_milliseconds={name: spread(values, 3) for name, values in took.items()},
        rate_to_tf_bilinear=rate,
        crop_milliseconds={
            size: {name: spread(values, 3) for name, values in times.items()}
            for size, times in decoding.items()
        },
        bars={"grey_levels_from_pillow": BAR_GREY_LEVELS, "rate_to_tf_bilinear": BAR_RATE},
        bars_met=from_pillow["bilinear"]["mean"] <= BAR_GREY_LEVELS and rate["ratio_of_medians"] >= BAR_RATE,
    )
    print(f"bars {'met' if record['bars_met'] else 'not met'}; record in {RECORD}")
    return 0 if record["bars_met"] else 1


if __name__ == "__main__":
    end_with(main)
