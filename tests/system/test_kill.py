# SPDX-License-Identifier: Apache-2.0
"""A training that is killed, stopped or left alone by its terminal continues as if nothing had happened."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np

from src.checkpoint.file import read_checkpoint
from src.training.records import read_metrics
from tests.helpers.doors import call_door

ROOT = Path(__file__).parents[2]
STEPS = 120  # batches, two an update
KEYS = {
    "model": "resnet9", "widths": "[4,4,8,8]", "batch_size": 20, "train_steps": STEPS // 2,
    "warmup_epochs": 1, "lr": 0.1, "ema_decay": 0.95, "accumulate_steps": 2, "cutout": 8,
    "mixup_alpha": 0.2, "save_every": 0.3, "eval_every": 2, "log_every": 1, "run_name": "run",
}  # fmt: skip
BOUND = 240  # seconds; idle machines need 15


def start(*words, **streams):
    return subprocess.Popen([sys.executable, "train.py", *map(str, words)], cwd=ROOT, **streams)


def start_in(terminal, *words):
    """The same with this terminal as its own."""
    return start(
        *words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip


def recorded(run):
    """The batch of the run's newest record."""
    records = run / "metrics.jsonl"
    return max((r["step"] for r in read_metrics(records)), default=0) if records.exists() else 0


def trains_to(run, step, start):
    """The process that `start()` gives, once it has recorded that batch and one of its own."""
    step = max(step, recorded(run) + 1)
    process, until = start(), time.monotonic() + BOUND
    while recorded(run) < step:
        assert time.monotonic() < until, f"no record of batch {step} after {BOUND} s"
        time.sleep(0.01)
    return process


def stopped_at(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt").meta["step"]


def test_a_kill_a_signal_and_a_closed_terminal_change_no_bit(data_path, tmp_path):
    done = call_door("train.py", data_path=data_path, output_path=tmp_path / "straight", **KEYS)
    assert done.returncode == 0, done.stderr
    run, straight = tmp_path / "run", tmp_path / "straight" / "run"
    moments = [random.SystemRandom().randrange(first, first + 20) for first in (1, 30, 60)]
    print("after batches", moments)

    words = [word for key, value in KEYS.items() for word in (f"--{key}", value)]
    words += ["--data_path", data_path, "--output_path", tmp_path]
    process = trains_to(run, moments[0], lambda: start(*words, stderr=subprocess.DEVNULL))
    process.kill()
    assert process.wait(BOUND) == -signal.SIGKILL

    process = trains_to(run, moments[1], lambda: start("--resume", run, stderr=subprocess.PIPE, text=True))
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=BOUND)[1]
    assert process.returncode == 143
    said = f"stopped after batch {stopped_at(run)} of {STEPS}, state saved; continue with: "
    assert errors.splitlines()[-1] == f"{said}python train.py --resume {run}"
    assert moments[1] <= stopped_at(run) < STEPS

    ours, terminal = os.openpty()
    process = trains_to(run, moments[2], lambda: start_in(terminal, "--resume", run))
    os.close(terminal)
    before = stopped_at(run)
    os.close(ours)  # SIGHUP, and from now on nothing can be written to it
    assert process.wait(BOUND) not in (0, 1, 2, -signal.SIGHUP)
    assert max(before, moments[2]) <= stopped_at(run) < STEPS

    done = call_door("train.py", resume=run)
    assert done.returncode == 0, done.stderr
    last, expected = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (run, straight))
    assert last.meta["step"] == expected.meta["step"] == STEPS
    assert last.meta["progress"]["best"] == expected.meta["progress"]["best"]
    assert last.arrays.keys() == expected.arrays.keys()
    assert not [n for n in last.arrays if not np.array_equal(last.arrays[n], expected.arrays[n])]
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record]
    assert steps == list(range(2, STEPS + 1, 2))
