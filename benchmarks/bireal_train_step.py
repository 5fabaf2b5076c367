# SPDX-License-Identifier: Apache-2.0
"""What do the quantisers cost? A training step of birealnet18 against its real-valued twin's.

    python -m benchmarks.bireal_train_step

Images of 64x64, batch 64, 40 classes, float32, Adam, on the CPU. The twin has the same blocks with ReLU and
real weights. Both are in one process and take turns step by step. Writes
benchmarks/records/bireal_train_step.json. The bar: our median is at most 1.25 times the twin's.
"""

import time

from benchmarks.record import RECORDS, end_with, parser, spread, write_record
from benchmarks.steps import ratios, report

BATCH, SIDE, CLASSES, BAR = 64, 64, 40, 1.25
KINDS = {"binary": {}, "twin": {"activation": "relu", "binary_weights": False}}


def step_of(**keys):
    """A callable that makes one step."""
    import mindspore as ms
    import numpy as np

    from src.model_utils.config import load_config
    from src.training.build import build_train_step
    from src.zoo import config_class_of, create_recipe

    keys |= {"model": "birealnet18", "batch_size": BATCH, "lr_base_batch": BATCH, "image_size": SIDE}
    recipe = create_recipe(load_config(keys, config_class_of=config_class_of))
    network = recipe.network(num_classes=CLASSES)
    step = build_train_step(recipe, network, steps=1000, steps_per_epoch=1000, cards=1)
    rng = np.random.default_rng(0)
    images = ms.Tensor(rng.standard_normal((BATCH, 3, SIDE, SIDE)).astype(np.float32))
    targets = ms.Tensor(np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)])
    return lambda: float(step(images, targets)[0].asnumpy())


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--turns", type=int, default=15, help="counted steps of each (default 15)")
    own = flags.parse_args()

    from src.model_utils.device_adapter import set_up_device

    set_up_device("CPU")
    steps = {name: step_of(**keys) for name, keys in KINDS.items()}
    seconds = {name: [] for name in steps}
    for turn in range(-2, own.turns):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    ratio = spread(ratios(seconds, "binary", "twin"), 3)
    record = write_record(
        RECORDS / "bireal_train_step.json",
        question=f"seconds of one birealnet18 training step, {SIDE}x{SIDE}, batch {BATCH}, float32, CPU",
        command="python -m benchmarks.bireal_train_step",
        seconds={name: spread(values, 3) for name, values in seconds.items()},
        ratio_to_twin=ratio,
        bar=BAR,
        bar_met=ratio["median"] <= BAR,
    )
    report(seconds, {"twin": ratio})
    return 0 if record["bar_met"] else 1


if __name__ == "__main__":
    end_with(main)
