# SPDX-License-Identifier: Apache-2.0
"""The quickstart as a newcomer calls it, on real images and on the drawn ones."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from src.data.prepare.commands import main as prepare
from tests.helpers.real_images import write_first

ROOT = Path(__file__).parents[2]


def call(*arguments):
    return subprocess.run(
        ["bash", "scripts/quickstart.sh", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
    )


def assert_complete(done, least_accuracy):
    assert done.returncode == 0, done.stderr
    summary = done.stdout[done.stdout.rindex("\naccuracy ") + 1 :]
    accuracy = float(re.match(r"accuracy +([\d.]+) %", summary)[1])
    assert accuracy >= least_accuracy
    lines = re.findall(r"^(?:run|report|pictures|model) +(.*)", summary, re.MULTILINE)
    named = [ROOT / path for line in lines for path in line.split()]
    assert len(named) == 6 and all(path.exists() for path in named)
    parity = json.loads((named[-1] / "parity.json").read_text())
    assert parity["passed"] and parity["inputs"]["real"] > 0
    assert done.stdout.count(".png\n") >= 8  # the predictions of the sample images


@pytest.mark.slow
@pytest.mark.data
def test_real_images(tmp_path):
    """A fifth of them: 58.2 % instead of 78."""
    write_first(tmp_path, train=10_000, test=2_000)
    assert_complete(call("--data_path", tmp_path), 53)


@pytest.mark.slow
def test_drawn_shapes(tmp_path):
    fewer = ["--train_images", "10000", "--test_images", "2000"]  # of 50,000: 94.6 % instead of 99
    prepare(["shapes", "--output_path", str(tmp_path), *fewer])
    assert_complete(call("--data_path", tmp_path), 92)


@pytest.mark.parametrize("arguments", [["--data"], ["--data", "x"], ["--data_path"], ["a", "b", "c"]])
def test_a_wrong_call_is_one_line_before_anything_is_installed(arguments):
    done = call(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "--data_path DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
