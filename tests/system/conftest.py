# SPDX-License-Identifier: Apache-2.0
"""The doors, and what several tests call them with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.doors import call_door

CLASSES = ("blue jays", "grass", "red")  # of `pictures`
# A network that is compiled in seconds, and 10 batches an epoch.
TINY = {
    "model": "resnet9",
    "widths": "[4,4,8,8]",
    "batch_size": 20,
    "epochs": 2,
    "warmup_epochs": 0.5,
    "lr": 0.1,
}


@pytest.fixture(scope="session")
def door():
    """door("train.py", "--flag", value, ..., key=value, ...), see `call_door`."""
    return call_door


@pytest.fixture(scope="session")
def trained(door, data_path, tmp_path_factory) -> Path:
    """The folder of a finished run on the small data set."""
    output = tmp_path_factory.mktemp("runs")
    done = door("train.py", data_path=data_path, output_path=output, run_name="tiny", ema_decay=0.9, **TINY)
    assert done.returncode == 0, done.stderr
    return output / "tiny"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Class folders, 12 pictures a class told by colour, of many sizes and kinds."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(12):
            height, width = rng.integers(20, 90, 2)
            pixels = rng.integers(0, 100, (height, width, 3)).astype(np.uint8)
            pixels[..., 2 - label] += 120
            image = Image.fromarray(pixels)
            if number == 0:
                image.convert("CMYK").save(root / name / "cmyk.jpg")
            elif number == 1:
                image.quantize(16).save(root / name / "palette.png")
            else:
                image.save(root / name / f"{number:02d}.{'jpg' if number % 2 else 'png'}")
    return root
