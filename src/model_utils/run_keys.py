"""The keys of a run: what, where, on which device."""

from pathlib import PurePath
from typing import Literal

from pydantic import model_validator

from .keys import InputPath, Keys, OutputPath, key, refusal

DEVICE_TARGETS = ("auto", "Ascend", "GPU", "CPU")
PRETRAINED_HEADS = ("keep", "replace", "zero")


class RunKeys(Keys):
    """The run: what, where, on which device."""

    model: str = key("", "model to train; required; src/zoo.py lists the names")
    data_path: InputPath = key(
        "data", "folder of the data set, or the folder that holds cifar-10-batches-bin", unit="folder"
    )
    output_path: OutputPath = key("runs", "folder in which each run gets a folder of its own", unit="folder")
    run_name: str = key("", "name of the run's folder; empty: recipe, date and time")
    device_target: Literal[DEVICE_TARGETS] = key(
        "auto", "device; auto: the first of Ascend, GPU, CPU that this machine has"
    )
    seed: int = key(0, "seed of initial weights, order of images and augmentation", ge=0, le=4_000_000_000)
    pretrained_path: InputPath = key("", "weights to start from; empty: none", unit="file or folder")
    pretrained_head: Literal[PRETRAINED_HEADS] = key(
        "replace", "classifier of pretrained weights; keep: theirs; replace: a new one; zero: zeros"
    )

    @model_validator(mode="after")
    def _run_has_a_folder(self) -> "RunKeys":
        name = PurePath(self.run_name)
        if self.run_name and (not name.parts or name.is_absolute() or ".." in name.parts):
            raise refusal("run_name", self.run_name, "the name of a folder in output_path")
        return self
