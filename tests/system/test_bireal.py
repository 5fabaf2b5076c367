# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net from the outside: the paper's stages, then evaluated, exported, used and resumed."""

import json

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import TensorProto

from src.checkpoint.file import read_checkpoint
from src.deploy.mindir import _read_proto
from src.training.records import read_metrics
from tests.helpers.doors import check_same_answers, error_of, last_json
from tests.helpers.runs import check_resumes_to_the_same_bits

SMALL = {
    "block_units": "[1,1,1,1]", "widths": "[4,4,8,8]", "stem": "small", "image_size": 32, "batch_size": 6,
    "eval_batch_size": 5, "train_steps": 6, "eval_every": 0.4, "log_every": 1, "lr_base_batch": 6,
}  # fmt: skip
WITH_ALL = {
    "colour_jitter": "[0.4,0.4,0.4,0.1]", "lighting": 0.1, "autoaugment": "imagenet", "random_erasing": 0.5,
    "mixup_alpha": 0.2, "cutmix_alpha": 1.0, "crop_percentage": 0.8, "bn_reestimation_batches": 3,
    "save_every": 0.4, "keep_checkpoints": 9,
}  # fmt: skip
STAGE1 = ("--config_path", "configs/bireal/birealnet18_stage1_real.yaml")
STAGE2 = ("--config_path", "configs/bireal/birealnet18_stage2_binary.yaml")


@pytest.fixture(scope="module")
def run(door, pictures, tmp_path_factory):
    """A step of the paper's first stage, and the binary one from its weights."""
    output = tmp_path_factory.mktemp("bireal")
    shared = {**SMALL, "data_path": pictures, "output_path": output}
    keys = {**shared, "train_steps": 1, "run_name": "clip", "activation": "clip"}
    done = door("train.py", *STAGE1, **keys)
    assert done.returncode == 0, done.stderr
    keys = {**shared, "run_name": "binary", "pretrained_path": output / "clip" / "checkpoints" / "last.ckpt"}
    done = door("train.py", *STAGE2, **keys, **WITH_ALL)
    assert done.returncode == 0, done.stderr
    return output / "binary"


@pytest.fixture(scope="module")
def checkpoint(run):
    return run / "checkpoints" / "last.ckpt"


def test_the_binary_stage_starts_from_the_clipped_one(run):
    log = (run / "train.log").read_text()
    assert f"starting from {run.parent / 'clip' / 'checkpoints' / 'last.ckpt'}" in log


def test_flips_and_saturation_are_recorded(run):
    records = [r for r in read_metrics(run / "metrics.jsonl") if "monitor_bit_flips" in r]
    assert [r["step"] for r in records] == [2, 4, 6]
    for record in records:
        assert 0 <= record["monitor_bit_flips"] <= 100 and 0 < record["monitor_saturated_activations"] < 100
    assert any(record["monitor_bit_flips"] > 0 for record in records)
    assert (run / "learning_curves.png").stat().st_size > 10_000
    real = read_metrics(run.parent / "clip" / "metrics.jsonl")
    assert not any(key.startswith("monitor") for record in real for key in record)


def test_statistics_are_re_estimated(run):
    records = [r for r in read_metrics(run / "metrics.jsonl") if "eval_top1" in r]
    assert [r["step"] for r in records][-2:] == [6, 6]
    assert records[-1]["eval_loss"] != records[-2]["eval_loss"]


def test_evaluation_is_that_of_training(door, run, checkpoint):
    final = json.loads((run / "summary.json").read_text())["final"]
    answer = last_json(door("eval.py", checkpoint_path=checkpoint, eval_batch_size=2))
    assert answer["count"] == final["count"] == 5 and answer["top1"] == final["top1"]
    assert answer["loss"] == pytest.approx(final["loss"], rel=1e-3)


def test_a_stopped_run_goes_on_to_the_same_bits(run, checkpoint, tmp_path):
    check_resumes_to_the_same_bits(run, tmp_path / "copy", step=4)
    assert any(name.startswith("monitor.") for name in read_checkpoint(checkpoint).arrays)


def test_the_export_holds_signs_and_gives_the_same_answers(door, checkpoint, pictures, tmp_path):
    report = last_json(door("export.py", checkpoint_path=checkpoint, file_name=tmp_path / "m"))
    assert report["passed"] and report["file"]["limit"] == 1e-5 and report["inputs"]["real"] == 5
    stored = {p.name: p for p in _read_proto(tmp_path / "m" / "model.mindir").graph.parameter}
    kernels = [p for name, p in stored.items() if "binary_conv.weight" in name]
    assert len(kernels) == 4
    for kernel in kernels:
        assert kernel.data_type == TensorProto.FLOAT
        assert set(np.frombuffer(kernel.raw_data, np.float32)) == {-1.0, 1.0}
    card = json.loads((tmp_path / "m" / "card.json").read_text())["preparation"]
    assert (card["crop"], card["crop_percentage"], card["image_size"]) == ("centre", 0.8, 32)
    check_same_answers(door, pictures, tmp_path / "m", checkpoint, count=36)


def test_wrong_keys_are_one_line(door, pictures, tmp_path):
    given = {**SMALL, "model": "birealnet18", "data_path": pictures, "output_path": tmp_path / "runs"}
    assert "multiples of 16" in error_of(door("train.py", **given | {"image_size": 40}))
    assert "approx_sign, ste_sign" in error_of(door("train.py", **given, activation="sign"))
    assert not (tmp_path / "runs").exists()
