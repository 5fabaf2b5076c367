# SPDX-License-Identifier: Apache-2.0
"""How long a run is, in which unit, and what becomes of it when it is to train longer."""

import os
import signal

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.model_utils.config import read_yaml
from src.optim.keys import with_one_length
from src.training.records import read_metrics
from src.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("graph_mode")

CONSTANT = {"lr_schedule": "constant", "warmup_epochs": 0.0, "log_every": 1}
ONE_CYCLE = {"lr_schedule": "one_cycle", "warmup_epochs": 0.4, "log_every": 1}


def last_of(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def rates_of(run_dir):
    return {r["step"]: r["lr"] for r in read_metrics(run_dir / "metrics.jsonl") if "lr" in r}


def stop_at(step):
    def watch(current, *_):
        if current == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return watch


def test_a_finished_run_of_a_constant_rate_goes_on_as_if_it_had_been_longer(
    start, resume, tmp_path, quartet_log
):
    start(tmp_path / "straight", epochs=2.0, **CONSTANT)
    run_dir = tmp_path / "run"
    start(run_dir, epochs=1.0, **CONSTANT)
    summary = resume(run_dir, epochs=2.0)
    assert summary["epochs"] == 2
    longer, straight = last_of(run_dir), last_of(tmp_path / "straight")
    for name, value in straight.arrays.items():
        np.testing.assert_array_equal(longer.arrays[name], value, err_msg=name)
    assert rates_of(run_dir) == rates_of(tmp_path / "straight")
    said = "the learning rate goes on as it would have: 0.1 now"
    assert said in [record.getMessage() for record in quartet_log]


def test_a_rate_that_had_come_to_its_end_rises_again_and_it_is_said(start, resume, tmp_path, quartet_log):
    run_dir = tmp_path / "run"
    start(run_dir, epochs=1.0, **ONE_CYCLE)
    for name in ("evaluation.json", "report.html"):
        (run_dir / name).touch()
    assert rates_of(run_dir)[5] == 0
    with pytest.raises(Interrupted):
        resume(run_dir, epochs=2.0, watch=stop_at(7))
    assert any(
        "the learning rate goes from 0 to 0.05: lr_schedule one_cycle of the whole run" in r.getMessage()
        for r in quartet_log
    )
    assert read_yaml(run_dir / "config.yaml")["epochs"] == 2
    ended = {"summary.json", "evaluation.json", "report.html"}
    assert not ended & {path.name for path in run_dir.iterdir()}, "it has not ended"
    resume(run_dir)  # to the new end
    assert (run_dir / "summary.json").is_file()
    assert last_of(run_dir).meta["step"] == 10
    # A peak after 2 of 10 batches, then a straight line to 0.
    assert [rates_of(run_dir)[step] for step in (6, 8, 10)] == pytest.approx([0.05, 0.025, 0])
    images = [record["images"] for record in read_metrics(run_dir / "metrics.jsonl")]
    assert images == sorted(images) and images[-1] == 400


def test_a_stopped_run_goes_on_to_another_end(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, epochs=2.0, watch=stop_at(3), **CONSTANT)
    resume(run_dir, epochs=1.0)
    assert last_of(run_dir).meta["step"] == 5


def test_a_run_cannot_end_before_what_it_has_trained(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    start(run_dir, epochs=2.0, **CONSTANT)
    before = (run_dir / "config.yaml").read_bytes()
    for length in ({"epochs": 1.0}, {"train_steps": 5}):
        with pytest.raises(
            UserError, match=r"^the run has trained 2 epochs \(10 updates\) .* after 1 \(5\);"
        ):
            resume(run_dir, **length)
    assert (run_dir / "config.yaml").read_bytes() == before


def test_train_steps_are_updates(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    summary = start(run_dir, train_steps=2, accumulate_steps=3, **CONSTANT)
    assert summary["batches"] == last_of(run_dir).meta["step"] == 6
    assert summary["updates"] == 2
    assert last_of(run_dir).arrays["train.updates"] == 2
    resume(run_dir, train_steps=3)
    assert last_of(run_dir).meta["step"] == 9
    assert last_of(run_dir).arrays["train.updates"] == 3


def test_train_steps_keep_their_number_where_other_batches_make_the_same_updates(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, train_steps=6, watch=stop_at(2), **CONSTANT)
    resume(run_dir, batch_size=20, accumulate_steps=2)
    assert last_of(run_dir).meta["step"] == 12
    assert last_of(run_dir).arrays["train.updates"] == 6


@pytest.mark.parametrize("length", [{"epochs": 2.0}, {"train_steps": 10}], ids=str)
def test_a_finished_run_that_is_resumed_with_other_batches_is_evaluated_once_more(
    start, resume, tmp_path, quartet_log, length
):
    """As with another number of cards; its warm-up did not fit into what train_steps then seemed to mean."""
    run_dir = tmp_path / "run"
    first = start(run_dir, **length, **{**ONE_CYCLE, "warmup_epochs": 0.8})
    again = resume(run_dir, batch_size=10)
    assert again["final"] == first["final"] and again["epochs"] == first["epochs"]
    assert not any("scaled to a quarter" in record.getMessage() for record in quartet_log)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": 3}, {"epochs": 3, "train_steps": 0}),
        ({"train_steps": 9}, {"train_steps": 9}),
        ({"epochs": 3, "train_steps": 9}, {"epochs": 3, "train_steps": 9}),
        ({"lr": 0.1}, {"lr": 0.1}),
    ],
)
def test_epochs_on_the_command_line_decide_whatever_train_steps_a_recipe_has(given, expected):
    assert with_one_length(given) == expected
