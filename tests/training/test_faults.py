# SPDX-License-Identifier: Apache-2.0
"""Losses that are no number, disks that are full, files that are gone: what is saved, and what is said."""

import math
import os
import signal

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.training import evaluator, feed
from src.training.signals import Interrupted
from tests.helpers.cut_runs import CASES, assert_same, last_of, records_of, stop_at
from tests.helpers.errors import fails
from tests.training.conftest import TinyRecipe

pytestmark = pytest.mark.usefixtures("graph_mode")


def put_nan(*steps):
    """Spoils a pixel and a target of the batches of these steps; of a pixel alone ReLU would make a 0.

    Only smoothed targets are numbers with a point.
    """

    def watch(step, images, targets):
        if step in steps:
            images[0, 0, 0, 0] = targets[0, 0] = math.nan

    return watch


def test_a_loss_that_is_no_number_stops_the_run_and_the_good_checkpoint_stays(start, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match=r"loss is nan at batch 9, 3 batches in a row") as error:
        start(
            run_dir, watch=put_nan(7, 8, 9, 10), label_smoothing=0.1, log_every=1, max_nonfinite_steps=3,
            save_every=0.4,
        )  # fmt: skip
    kept = run_dir / "checkpoints" / "last.ckpt"
    assert str(kept) in str(error.value)
    checkpoint = read_checkpoint(kept)
    assert checkpoint.meta["step"] == 6
    assert all(np.isfinite(value).all() for value in checkpoint.arrays.values())


def test_before_the_first_checkpoint_the_message_says_so(start, tmp_path):
    with pytest.raises(UserError, match=r"is nan at batch 2, 1 batches.*there is no checkpoint yet"):
        start(tmp_path / "run", watch=put_nan(2), label_smoothing=0.1, log_every=4)


def test_a_rate_that_is_far_too_high_stops_the_run(start, tmp_path):
    with pytest.raises(UserError, match=r"loss is (nan|inf) at batch \d+.*lower lr"):
        start(tmp_path / "run", lr=1e30, lr_schedule="constant", log_every=1)


def test_fewer_bad_batches_in_a_row_are_passed_over(start, tmp_path):
    run_dir = tmp_path / "run"
    summary = start(
        run_dir,
        watch=put_nan(2, 3, 5, 6),
        label_smoothing=0.1,
        log_every=1,
        max_nonfinite_steps=3,
        epochs=3.0,
        ema_decay=0.5,
    )
    records = [r for r in records_of(run_dir) if "loss" in r]
    assert [r["step"] for r in records if r["overflow"]] == [2, 3, 5, 6]
    assert all(math.isnan(r["loss"]) == (r["step"] in (2, 3, 5, 6)) for r in records)
    checkpoint = last_of(run_dir)
    assert checkpoint.arrays["train.applied"] == 11
    for name, value in checkpoint.arrays.items():
        assert np.isfinite(value).all(), name
    assert math.isfinite(summary["final"]["loss"])


def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay_whole(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    sync, full = os.fsync, []

    def fill(step, *_):
        if step == 7:
            full.append(step)

    def fsync(handle):
        if full and os.readlink(f"/proc/self/fd/{handle}").endswith(".ckpt"):
            raise OSError(28, "No space left on device")
        sync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"step_00000010\.ckpt: No space left on device; free space"):
            start(run_dir, watch=fill, **CASES["plain"])
    assert last_of(run_dir).meta["step"] == 5
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {
        "last.ckpt", "best.ckpt", "step_00000005.ckpt",
    }  # fmt: skip
    resume(run_dir)
    assert_same(run_dir, straight("plain"))


def test_a_folder_that_cannot_be_written_is_one_line(start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write") as error:
        start(tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stop_in_an_evaluation_loses_nothing(start, resume, tmp_path, monkeypatch):
    """What is evaluated is saved; the resume makes the evaluation (cases 67, 88)."""
    run_dir, whole, batches = tmp_path / "run", tmp_path / "whole", TinyRecipe.eval_batches
    keys = {**CASES["plain"], "eval_batch_size": 10}  # another size has another rounding

    class Signal:
        """Evaluation batches, before the second of which a signal comes."""

        def __init__(self, batches):
            self._batches = batches

        def __getattr__(self, name):
            return getattr(self._batches, name)

        def __iter__(self):
            for number, batch in enumerate(self._batches):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGUSR1)
                assert number < 2, "it went on after the signal"
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TinyRecipe, "eval_batches", lambda self, **where: Signal(batches(self, **where)))
        with pytest.raises(Interrupted, match="after batch 5 of 10, state saved"):
            start(run_dir, **keys)
    assert last_of(run_dir).meta["step"] == 5
    assert not any("eval_top1" in record for record in records_of(run_dir))
    resume(run_dir)
    start(whole, **keys)
    assert_same(run_dir, whole)


def test_an_image_that_cannot_be_evaluated_costs_no_step(start, resume, straight, tmp_path, monkeypatch):
    def damaged(*_, **__):
        raise UserError("val/a/1.jpg: cannot be decoded")

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate_network", damaged)
        with pytest.raises(UserError, match="cannot be decoded"):
            start(tmp_path / "run", **CASES["plain"])
    assert last_of(tmp_path / "run").meta["step"] == 5
    resume(tmp_path / "run")
    assert_same(tmp_path / "run", straight("plain"))


@pytest.mark.parametrize(("case", "step", "kept"), [("plain", 4, 3), ("all", 4, 3), ("all", 8, None)])
def test_a_run_that_ends_by_an_error_saves_first(start, resume, straight, tmp_path, case, step, kept):
    """A file that is gone for a while (case 83); inside an accumulation there is nothing to go on from."""
    run_dir = tmp_path / "run"

    def gone(current, *_):
        if current == step:
            raise UserError("train/a/1.jpg: No such file or directory")

    with pytest.raises(UserError, match=r"1\.jpg: No such file"):
        start(run_dir, watch=gone, save_every=9.0, eval_every=9.0, **CASES[case])
    if kept is None:
        assert not (run_dir / "checkpoints").exists()
        return
    assert last_of(run_dir).meta["step"] == kept
    with pytest.raises(UserError, match=r"1\.jpg: No such file"):
        resume(run_dir, watch=gone)  # which saves nothing twice
    assert last_of(run_dir).meta["step"] == kept
    resume(run_dir)
    assert last_of(run_dir).meta["step"] == last_of(straight(case)).meta["step"]
    for name, value in last_of(straight(case)).arrays.items():
        np.testing.assert_array_equal(last_of(run_dir).arrays[name], value, err_msg=name)


def test_what_is_not_saved_is_not_said_to_be(start, tmp_path):
    """A stop while the loss is no number (case 65)."""

    def watch(step, images, targets):
        put_nan(2, 3)(step, images, targets)
        stop_at(3)(step)

    with pytest.raises(Interrupted) as stop:
        start(tmp_path / "run", watch=watch, max_nonfinite_steps=100, log_every=1, label_smoothing=0.1)
    said = "after batch 3 of 10, not saved, as the loss is not finite; there is no checkpoint yet"
    assert said in str(stop.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_updates_that_are_skipped_without_end_stop_the_run(start, tmp_path, monkeypatch):
    """With a loss that stays finite (case 63)."""

    def skipped(step, batches, first, last, *, sink):
        outputs = tuple(ms.Tensor(value, ms.float32) for value in (2.0, 1.0, 1.0, math.inf))
        return (outputs for _ in range(first, last))

    monkeypatch.setattr(feed, "run_steps", skipped)
    said = fails(start, tmp_path / "run", epochs=3.0, log_every=1)
    assert "7 updates in a row were skipped, up to batch 7" in said
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in said
