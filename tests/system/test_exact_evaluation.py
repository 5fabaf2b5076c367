"""10,007 images on 1, 2 and 3 processes, in uneven shares: each counts once, and all count the same."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.common.files import write_json

ROOT = Path(__file__).parents[2]
COUNT = 10_007  # a prime

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def many_images(data_path, tmp_path_factory):
    """The small drawn data set with more test images, hard enough that some are mistaken."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("data_batch_1.bin", "batches.meta.txt"):
        (folder / name).write_bytes((data_path / name).read_bytes())
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, COUNT).astype(np.uint8)
    images = rng.integers(0, 160, (COUNT, 3, 32, 32)).astype(np.uint8)
    images[labels < 3, labels[labels < 3]] += rng.integers(0, 95, (labels < 3).sum()).astype(np.uint8)[
        :, None, None
    ]
    (folder / "test_batch.bin").write_bytes(
        np.concatenate([labels[:, None], images.reshape(COUNT, -1)], axis=1).tobytes()
    )
    write_json(folder / "sizes.json", {"data_batch_1.bin": 200, "test_batch.bin": COUNT})
    return folder


def test_every_number_of_processes_counts_the_same(trained, many_images, tmp_path):
    found = {}
    for processes in (1, 2, 3):
        ended = subprocess.run(
            [
                "bash", "scripts/run_distribute_eval.sh", trained / "checkpoints" / "best.ckpt", many_images,
                str(processes), "--eval_batch_size", "300",
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
            env={**os.environ, "DEVICE_TARGET": "CPU", "LOG_DIR": str(tmp_path / str(processes))},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        result = json.loads(ended.stdout.splitlines()[-1])
        assert result["count"] == COUNT
        found[processes] = (round(result["top1"] * COUNT / 100, 6), result["loss"])
    right, loss = found[1]
    assert 0.3 * COUNT < right < 0.95 * COUNT and right == int(right)
    for several in (found[2], found[3]):
        assert several == (right, pytest.approx(loss, rel=1e-6))
