# SPDX-License-Identifier: Apache-2.0
"""On real images, through the script: several processes train as one does with all their batches together.

The rate is small, as rounding grows with it: one process that sees the images of its batches in another
order is 1.5e-4 away from itself after 20 steps at 0.002, as inputs of ReLU and max-pooling change sides, and
4e-7 at 0.0002.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from tests.helpers.real_images import write_first

ROOT = Path(__file__).parents[2]
STEPS = 20
SHARED = {
    "flip": "none", "lr_schedule": "constant", "lr": 0.0002, "eval_every": 100, "log_every": 10,
    "bucket_mib": 0.01,
}  # fmt: skip
MODELS = {
    "resnet9": (
        "resnet9/cifar10.yaml", {"widths": "[8,8,16,16]", "crop_pad": 0, "cutout": 0, "sync_bn": "true"},
    ),
    # Group normalisation does not see the rest of the batch: its parts may also come one after the other.
    "bit": (
        "bit/tiny_cifar10.yaml",
        {
            "block_units": "[1,1,1,1]", "width_factor": 0.5, "image_size": 32,
            "resize_size": 32, "train_crop": "resize",
        },
    ),
}  # fmt: skip
# processes, images a process, batches an update: always 128 images an update
WHOLE = (1, 128, 1)
PARTS = [("resnet9", (4, 32, 1)), ("bit", (2, 32, 2))]

pytestmark = [pytest.mark.data, pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """weights(model, shape, **keys): name -> array after 20 updates; each training is made once."""
    folder, made = tmp_path_factory.mktemp("parallel"), {}
    (folder / "data").mkdir()
    write_first(folder / "data", train=128 * STEPS, test=100)

    def train(model, shape, **keys):
        name = "-".join(map(str, [model, *shape, *keys]))
        if name not in made:
            made[name] = read_checkpoint(run(folder, name, model, *shape, **keys)).arrays
        return made[name]

    return train


def run(folder, name, model, processes, batch_size, accumulate_steps, **others):
    config, own = MODELS[model]
    keys = {**SHARED, **own, **others, "batch_size": batch_size, "accumulate_steps": accumulate_steps}
    keys |= {"train_steps": STEPS, "output_path": folder, "run_name": name}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    script = ["bash", "scripts/run_distribute_train.sh", f"configs/{config}", str(folder / "data")]
    ended = subprocess.run(
        [*script, str(processes), *words], cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, "DEVICE_TARGET": "CPU", "LOG_DIR": str(folder / f"log-{name}")},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return folder / name / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(("model", "shape"), PARTS)
def test_the_weights_are_those_of_one_process_with_the_whole_batch(weights, model, shape):
    # That the ranks hold the same bits is checked by each run before it saves (check_equal_over_ranks).
    whole, parts = weights(model, WHOLE), weights(model, shape)
    names = [name for name in whole if not name.startswith(("optim.", "train."))]
    assert any(name.endswith("weight") for name in names)
    differences = {name: float(np.abs(parts[name] - whole[name]).max()) for name in names}
    print(model, shape, "largest difference", max(differences.values()))
    assert max(differences.values()) < 1e-5, max(differences, key=differences.get)


def test_statistics_of_each_process_alone_give_other_weights(weights):
    whole, parts = weights("resnet9", WHOLE), weights("resnet9", (2, 64, 1), sync_bn="false")
    assert max(np.abs(parts[name] - whole[name]).max() for name in whole if "conv" in name) > 5e-5
