"""A killed training continues as if nothing had happened, bit for bit."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 120  # batches, two an update
KEYS = [
    "--widths", "[4,4,8,8]", "--batch_size", "20", "--train_steps", str(STEPS // 2), "--warmup_epochs", "1",
    "--lr", "0.1", "--ema_decay", "0.95", "--accumulate_steps", "2", "--cutout", "8", "--mixup_alpha", "0.2",
    "--save_every", "0.3", "--eval_every", "5", "--log_every", "1",
]  # fmt: skip


def start(*words):
    return subprocess.Popen(
        [sys.executable, "train.py", *map(str, words)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def send_at(process, step, number):
    """Sends the signal once the process says that it has made `step` steps; returns how it ended."""
    for line in process.stderr:
        made = re.match(r"batch (\d+)/", line)
        if made and int(made[1]) >= step:
            process.send_signal(number)
            break
    rest = process.stderr.read()
    return process.wait(timeout=120), rest


@pytest.fixture(scope="module")
def undisturbed(data_path, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    process = start("--data_path", data_path, "--output_path", output, "--run_name", "run", *KEYS)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return read_checkpoint(output / "run" / "checkpoints" / "last.ckpt")


def assert_same(run, undisturbed):
    last = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last.meta["step"] == undisturbed.meta["step"] == STEPS
    assert last.meta["progress"]["best"] == undisturbed.meta["progress"]["best"]
    assert last.arrays.keys() == undisturbed.arrays.keys()
    different = [n for n in last.arrays if not np.array_equal(last.arrays[n], undisturbed.arrays[n])]
    assert not different


def test_three_kills_at_random_moments_change_nothing(data_path, tmp_path, undisturbed):
    moments = sorted(random.SystemRandom().sample(range(1, STEPS - 5), 3))
    print("killed after steps", moments)
    run = tmp_path / "run"
    words = ["--data_path", data_path, "--output_path", tmp_path, "--run_name", "run", *KEYS]
    for moment in moments:
        code, _ = send_at(start(*words), moment, signal.SIGKILL)
        assert code == -signal.SIGKILL
        words = ["--resume", run]
    process = start(*words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same(run, undisturbed)
    steps = [int(s) for s in re.findall(r'"step": (\d+), .*"loss"', (run / "metrics.jsonl").read_text())]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_says_how_to_continue_and_changes_nothing(
    number, data_path, tmp_path, undisturbed
):
    run = tmp_path / "run"
    words = ["--data_path", data_path, "--output_path", tmp_path, "--run_name", "run", *KEYS]
    code, errors = send_at(start(*words), 47, number)
    assert code == 143  # MindSpore turns a SIGINT in the middle of a step into a SIGTERM
    assert f"--resume {run}" in errors.splitlines()[-1]
    stopped = read_checkpoint(run / "checkpoints" / "last.ckpt").meta["step"]
    assert 47 <= stopped < STEPS
    process = start("--resume", run)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same(run, undisturbed)
