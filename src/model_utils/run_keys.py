# SPDX-License-Identifier: Apache-2.0
"""The keys of a run: what, where, on which device."""

from pathlib import PurePath
from typing import Literal

from pydantic import model_validator

from .keys import InputPath, Keys, OutputPath, key, refusal

DEVICE_TARGETS = ("auto", "Ascend", "GPU", "CPU")
PRETRAINED_HEADS = ("keep", "replace", "zero")


class RunKeys(Keys):
    """The run: what, where, on which device."""

    model: str = key("", "name of the model to train, one of src/zoo.py; required")
    data_path: InputPath = key(
        "data",
        "folder of the data set, or the folder that holds cifar-10-batches-bin",
        unit="folder",
    )
    output_path: OutputPath = key("runs", "each run gets a folder of its own in it", unit="folder")
    run_name: str = key("", "name of the run's folder; empty: made of the recipe's name, date and time")
    device_target: Literal[DEVICE_TARGETS] = key(
        "auto", "device to train on; auto: the first of Ascend, GPU and CPU that this machine has"
    )
    seed: int = key(
        0, "seed of the initial weights, the order of the images and the augmentation", ge=0, le=4_000_000_000
    )
    pretrained_path: InputPath = key(
        "", "pretrained weights to start from; empty: none", unit="file or folder"
    )
    pretrained_head: Literal[PRETRAINED_HEADS] = key(
        "replace",
        "the pretrained classifier; keep: use it; replace: a new random one; zero: a new one of zeros",
    )

    @model_validator(mode="after")
    def _run_has_a_folder(self) -> "RunKeys":
        name = PurePath(self.run_name)
        if self.run_name and (not name.parts or name.is_absolute() or ".." in name.parts):
            raise refusal("run_name", self.run_name, "the name of a folder in output_path")
        return self
