"""The quickstart as a newcomer calls it, on real images and on the drawn ones."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from src.data.binary import CIFAR10, ImageSet, read_set, write_cifar10
from src.data.prepare.commands import main as prepare

ROOT = Path(__file__).parents[2]


def call(*arguments):
    return subprocess.run(
        ["bash", "scripts/quickstart.sh", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
    )


def first(images, count):
    return ImageSet(images.images[:count], images.labels[:count], images.class_names)


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
    train, test = (read_set(CIFAR10, Path(os.environ["QUARTET_DATA"]), split) for split in ("train", "test"))
    write_cifar10(tmp_path, first(train, 10_000), first(test, 2_000))
    assert_complete(call("--data_path", tmp_path), 53)


@pytest.mark.slow
def test_drawn_shapes(tmp_path):
    fewer = ["--train_images", "20000", "--test_images", "2000"]  # of 50,000 and 10,000: 97 % instead of 99
    prepare(["shapes", "--output_path", str(tmp_path), *fewer])
    assert_complete(call("--data_path", tmp_path), 95)


@pytest.mark.parametrize("arguments", [["--data"], ["--data", "x"], ["--data_path"], ["a", "b", "c"]])
def test_a_wrong_call_is_one_line_before_anything_is_installed(arguments):
    done = call(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "--data_path DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
