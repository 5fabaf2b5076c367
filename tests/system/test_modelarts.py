# SPDX-License-Identifier: Apache-2.0
"""The doors as a job of ModelArts starts them: everything comes from a bucket, and everything goes there."""

import re
import signal
import zipfile

import pytest

from src.checkpoint.file import read_checkpoint
from src.model_utils.config import read_yaml
from tests.model_utils.modelarts.cloud import Cloud, tree
from tests.system.conftest import TINY


@pytest.fixture
def cloud(tmp_path, data_path):
    """A bucket with the small data set in a .zip."""
    cloud = Cloud(tmp_path)
    with zipfile.ZipFile(cloud.bucket / "colours.zip", "w") as file:
        for path in data_path.iterdir():
            file.write(path, f"colours/{path.name}")
    return cloud


def job(cloud, door, **keys):
    """A door with the data from the bucket, in a server whose disk is as the last job left it."""
    data = {"data_url": "obs://bucket/colours.zip", "modelarts_dataset_unzip_name": "colours"}
    return cloud.begin(module=door, **data, **keys)


def test_a_stopped_training_is_in_the_bucket_and_goes_on_from_there(cloud):
    urls = {"train_url": "obs://bucket/out", "result_url": "obs://bucket/seen"}
    keys = {**TINY, "epochs": 12, "log_every": 1, "eval_every": 12}
    process = job(cloud, "train", **urls, run_name="r", **keys)
    for line in process.stderr:
        if re.match(r"batch \d+/120 ", line):
            process.send_signal(signal.SIGTERM)
            break
    out, error = process.communicate(timeout=300)
    assert process.returncode == 143, out + error
    run = cloud.bucket / "out" / "r"
    step = read_checkpoint(run / "checkpoints" / "last.ckpt").meta["step"]
    assert 0 < step < 120

    other = cloud.server / "another" / "r"
    process = job(cloud, "train", **urls, ckpt_url="obs://bucket/out/r", resume=other, output_path=None)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert f"after batch {step} of 120" in error
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint.meta["step"] == 120
    assert "top-1" in (run / "logs" / "train-rank0.log").read_text()
    # The run does not remember the cloud: its checkpoint is used anywhere.
    assert read_yaml(run / "config.yaml")["enable_modelarts"] is False
    assert not checkpoint.meta["config"].get("data_url")
    results = tree(cloud.bucket / "seen" / "r")
    assert "train.log" in results and "summary.json" in results and "logs/train-rank0.log" in results
    assert {f"checkpoints/{name}" for name in tree(run / "checkpoints")} <= set(tree(run)) - set(results)
