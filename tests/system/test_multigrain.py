# SPDX-License-Identifier: Apache-2.0
"""MultiGrain from the outside: trained, stopped and resumed, evaluated, exported and used."""

import json

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.training.feed import run_steps
from src.training.records import read_metrics
from tests.helpers.doors import check_same_answers, error_of, last_json
from tests.helpers.runs import check_resumes_to_the_same_bits, prepare_run

CONFIG = "configs/multigrain/tiny_imagenet.yaml"
RUN = {
    "widths": [4, 4, 8, 8], "image_size": 32, "batch_size": 7, "eval_batch_size": 5, "train_steps": 8,
    "epoch_length": 0.7, "warmup_epochs": 0, "eval_every": 1, "log_every": 1, "lr_base_batch": 7, "lr": 0.05,
    "learn_pooling_exponent": True, "knn_probe_images": 6, "save_every": 0.6, "keep_checkpoints": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(door, pictures, tmp_path_factory):
    """Batches of 7 with 3 copies of an image: some images are in two batches."""
    output = tmp_path_factory.mktemp("multigrain")
    done = door(
        "train.py", config_path=CONFIG, **RUN, data_path=pictures, output_path=output, run_name="margin"
    )
    assert done.returncode == 0, done.stderr
    return output / "margin"


@pytest.fixture(scope="module")
def checkpoint(run):
    return run / "checkpoints" / "last.ckpt"


def test_what_is_trained_and_recorded(run, checkpoint):
    arrays = read_checkpoint(checkpoint).arrays
    assert arrays["loss.beta"] != 1.2 and arrays["pool.p"] != 3 and "optim.velocity.loss.beta" in arrays
    assert "loss.beta" not in read_checkpoint(checkpoint).network_weights()
    records = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in records if "monitor_knn_top1" in r] == [3, 6, 8], "24 images are 3 batches"
    for record in records:
        for name in ("monitor_knn_top1", "monitor_instance_recall"):
            assert 0 <= record.get(name, 0) <= 100
    training = [r for r in records if "loss" in r]
    for record in training:
        joint = (record["loss_cross_entropy"] + record["loss_margin"]) / 2
        assert record["loss"] == pytest.approx(joint, rel=1e-5)
    assert training[0]["loss_beta"] == pytest.approx(1.2, abs=0.01)


def test_a_stopped_run_goes_on_to_the_same_bits(run, tmp_path):
    check_resumes_to_the_same_bits(run, tmp_path / "copy", step=4)


def test_evaluation_is_that_of_training(door, run, checkpoint):
    final = json.loads((run / "summary.json").read_text())["final"]
    answer = last_json(door("eval.py", checkpoint_path=checkpoint, eval_batch_size=2))
    assert answer["count"] == final["count"] and answer["top1"] == final["top1"]
    assert answer["loss"] == pytest.approx(final["loss"], rel=1e-3)


def test_whole_pictures_and_another_exponent(door, checkpoint):
    answers = [
        last_json(door("eval.py", checkpoint_path=checkpoint, eval_crop="whole", eval_image_size=48, **keys))
        for keys in ({}, {"eval_pooling_exponent": "max"})
    ]
    assert answers[0]["count"] == answers[1]["count"] and answers[0]["loss"] != answers[1]["loss"]


def test_the_export_gives_the_same_answers(door, checkpoint, pictures, tmp_path):
    report = last_json(door("export.py", checkpoint_path=checkpoint, file_name=tmp_path / "m"))
    assert report["passed"] and report["file"]["limit"] == 1e-5 and report["inputs"]["real"] > 0
    check_same_answers(door, pictures, tmp_path / "m", checkpoint, count=36)


def test_the_triplet_loss_trains(pictures):
    keys = {**RUN, "metric_loss": "triplet", "negatives": "card", "classification_weight": 0}
    trainer = prepare_run({**keys, "data_path": str(pictures)}, config_path=CONFIG)
    assert not any(p.name == "loss.beta" for p in trainer.train_step.state)
    weight = trainer.network.layer1[0].conv1.weight
    before = weight.asnumpy().copy()
    list(run_steps(trainer.train_step, trainer.train_batches, 0, 2, sink=False))
    assert np.isfinite(weight.asnumpy()).all() and not np.array_equal(weight.asnumpy(), before)
    assert not trainer.network.fc.bias.asnumpy().any(), "the classifier has no loss"


def test_wrong_keys_are_one_line(door, pictures, tmp_path):
    given = {"config_path": CONFIG, **RUN, "data_path": pictures, "output_path": tmp_path / "runs"}
    assert "repetitions: 1 given" in error_of(door("train.py", **given | {"repetitions": 1}))
    assert "a number or max" in error_of(door("train.py", **given | {"pooling_exponent": "most"}))
    assert "no such key; the nearest known key is" in error_of(door("train.py", **given, lamda=1))
    assert not (tmp_path / "runs").exists()
