# SPDX-License-Identifier: Apache-2.0
"""Calling the scripts as a user does, from a folder of the user's."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "resnet9" / "quickstart.yaml"
BOUND = 240  # seconds; idle machines need 10
# A run of 30 steps an epoch of 5, whose start is most of the work.
TINY = ["--widths", "[4,4,8,8]", "--batch_size", "20", "--warmup_epochs", "0.5", "--lr", "0.1"]


@contextlib.contextmanager
def started(folder, script, *words, before=(), **environment):
    """The script as a process in `folder`, which is killed at the end of the block if it is still there."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOG_DIR", "DEVICE_TARGET", "DEVICE_ID") and not name.startswith(("NODE_", "MASTER_"))
    }
    process = subprocess.Popen(
        [*map(str, before), "bash", str(ROOT / "scripts" / script), *map(str, words)],
        cwd=folder, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()


def call(folder, script, *words, **how):
    """Runs the script to its end: exit code, output, errors."""
    with started(folder, script, *words, **how) as process:
        output, errors = process.communicate(timeout=BOUND)
    return process.returncode, output, errors


def wait_for(path, text):
    """Waits until a file is there and holds `text`."""
    until = time.monotonic() + BOUND
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            if text in path.read_text(errors="replace"):
                return
        time.sleep(0.02)
    raise AssertionError(f"{path} without {text!r} after {BOUND} s")


def pid_of(logs, rank):
    return int((logs / "state" / f"rank_{rank}").read_text().split()[0])


def left(word):
    """Processes that have this word in their command line, zombies aside."""
    return [
        p.info for p in psutil.process_iter(["pid", "cmdline"]) if word in " ".join(p.info["cmdline"] or [])
    ]
