# SPDX-License-Identifier: Apache-2.0
"""Runs of the tiny network that are cut, and the uncut ones that they must equal."""

import os
import signal

import numpy as np

from src.checkpoint.file import read_checkpoint
from src.training.records import read_metrics

CASES = {
    "plain": {"log_every": 1},
    "all": {
        "ema_decay": 0.9, "accumulate_steps": 3, "loss_scale": "dynamic", "loss_scale_window": 2,
        "optimizer": "adamw", "lr": 0.01, "clip_norm": 1.0, "mixup_alpha": 0.2, "cutout": 8,
        "epochs": 3.0, "log_every": 1,
    },
    "freezing": {  # 10 updates: the convolution stands still after 4, the normalisation after 8
        "optimizer": "muon", "ema_decay": 0.9, "ema_every": 3, "lookahead": True, "log_every": 1,
        "freeze_epochs": [0.8, 1.6], "head_lr": 0.3, "decoupled_decay": True,
    },
    "thor": {"optimizer": "thor", "thor_every": 3, "lr": 0.02, "loss_scale": "dynamic", "ema_decay": 0.9,
             "log_every": 1},
}  # fmt: skip


def stop_at(step, number=signal.SIGTERM):
    """Sends this process a signal while the step is in hand."""

    def watch(current, *_):
        if current == step:
            os.kill(os.getpid(), number)

    return watch


def last_of(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def records_of(run_dir):
    """The records without what depends on time."""
    return [
        {key: value for key, value in record.items() if key != "images_per_second"}
        for record in read_metrics(run_dir / "metrics.jsonl")
    ]


def assert_same_arrays(found, expected):
    """Two checkpoints hold the same bits."""
    assert found.arrays.keys() == expected.arrays.keys()
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


def assert_same(run_dir, straight):
    """Same weights, state, best figure and records."""
    found, expected = last_of(run_dir), last_of(straight)
    assert_same_arrays(found, expected)
    found, expected = ({**c.meta["progress"], "seconds": 0} for c in (found, expected))
    assert found == expected
    best, expected_best = (read_checkpoint(run / "checkpoints" / "best.ckpt") for run in (run_dir, straight))
    assert best.meta["step"] == expected_best.meta["step"]
    for name, value in expected_best.arrays.items():
        np.testing.assert_array_equal(best.arrays[name], value, err_msg=name)
    assert records_of(run_dir) == records_of(straight)
