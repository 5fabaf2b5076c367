# SPDX-License-Identifier: Apache-2.0
"""Runs of training: before their first step, and stopped ones that go on."""

import shutil
from pathlib import Path

import numpy as np

from src.checkpoint.file import read_checkpoint
from src.model_utils.config import load_config
from src.model_utils.device_adapter import set_up_device
from src.training.records import read_metrics
from src.training.trainer import Trainer
from src.zoo import config_class_of, create_recipe
from tests.helpers.doors import call_door


def prepare_run(keys: dict, *, config_path: str | None = None) -> Trainer:
    """What train.py makes of those keys before it takes the first step, which would compile the network."""
    config = load_config(keys, config_class_of=config_class_of, config_path=config_path)
    return Trainer(create_recipe(config), device=set_up_device("CPU", seed=config.seed))


def check_resumes_to_the_same_bits(run: Path, copy: Path, *, step: int) -> None:
    """A copy of a finished run, cut back to what a kill just after that step leaves, ends as the run did."""
    shutil.copytree(run, copy)
    checkpoints = copy / "checkpoints"
    for path in checkpoints.glob("*.ckpt"):
        if read_checkpoint(path).meta["step"] > step:
            path.unlink()
    assert any(checkpoints.glob("*.ckpt")) and not (checkpoints / "last.ckpt").exists()
    done = call_door("train.py", resume=copy)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_checkpoint(path / "checkpoints" / "last.ckpt").arrays for path in (copy, run))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert _measured(copy) == _measured(run)


def _measured(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without the speed."""
    records = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in r.items() if "second" not in key} for r in records]
