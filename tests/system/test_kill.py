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
STEPS = 60  # batches, two an update
KEYS = {
    "widths": "[4,4,8,8]", "batch_size": 20, "train_steps": STEPS // 2, "warmup_epochs": 1, "lr": 0.1,
    "ema_decay": 0.95, "accumulate_steps": 2, "cutout": 8, "mixup_alpha": 0.2, "save_every": 0.3,
    "eval_every": 2, "log_every": 1, "run_name": "run",
}  # fmt: skip
BOUND = 240  # seconds; idle machines need 15


def start(*words, **streams):
    return subprocess.Popen([sys.executable, "train.py", *map(str, words)], cwd=ROOT, **streams)


def wait_for_step(run, step):
    """Until the run has a record of that batch or a later one."""
    until = time.monotonic() + BOUND
    records = run / "metrics.jsonl"
    while time.monotonic() < until:
        if records.exists() and any(r["step"] >= step for r in read_metrics(records)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no record of batch {step} after {BOUND} s")


def stopped_at(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt").meta["step"]


def test_a_kill_a_signal_and_a_closed_terminal_change_no_bit(data_path, tmp_path):
    done = call_door("train.py", data_path=data_path, output_path=tmp_path / "straight", **KEYS)
    assert done.returncode == 0, done.stderr
    run, straight = tmp_path / "run", tmp_path / "straight" / "run"
    moments = sorted(random.SystemRandom().sample(range(1, STEPS - 8), 3))
    print("after batches", moments)

    words = [word for key, value in KEYS.items() for word in (f"--{key}", value)]
    process = start("--data_path", data_path, "--output_path", tmp_path, *words, stderr=subprocess.DEVNULL)
    wait_for_step(run, moments[0])
    process.kill()
    assert process.wait(BOUND) == -signal.SIGKILL

    process = start("--resume", run, stderr=subprocess.PIPE, text=True)
    wait_for_step(run, moments[1])
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=BOUND)[1]
    assert process.returncode == 143
    said = f"stopped after batch {stopped_at(run)} of {STEPS}, state saved; continue with: "
    assert errors.splitlines()[-1] == f"{said}python train.py --resume {run}"
    assert moments[1] <= stopped_at(run) < STEPS

    ours, terminal = os.openpty()
    process = start(
        "--resume", run, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    wait_for_step(run, moments[2])
    os.close(ours)  # SIGHUP, and from now on nothing can be written to it
    assert process.wait(BOUND) not in (0, 1, 2, -signal.SIGHUP)
    assert moments[2] <= stopped_at(run) < STEPS

    done = call_door("train.py", resume=run)
    assert done.returncode == 0, done.stderr
    last, expected = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (run, straight))
    assert last.meta["step"] == expected.meta["step"] == STEPS
    assert last.meta["progress"]["best"] == expected.meta["progress"]["best"]
    assert last.arrays.keys() == expected.arrays.keys()
    assert not [n for n in last.arrays if not np.array_equal(last.arrays[n], expected.arrays[n])]
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record]
    assert steps == list(range(2, STEPS + 1, 2))
