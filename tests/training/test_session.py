# SPDX-License-Identifier: Apache-2.0
"""A run's folder has one training at a time, and only what a run may change is taken with --resume."""

import os

import pytest

from src.checkpoint.file import read_checkpoint
from src.training.signals import Interrupted
from tests.helpers.errors import fails

pytestmark = pytest.mark.usefixtures("graph_mode")


def test_trainings_of_one_second_get_a_folder_each(start, tmp_path):
    """The name by date is the same; each finds what another process has made in the meantime."""
    for _ in range(3):
        start(tmp_path / "tiny-20260101-120000", train_steps=1)
    names = [f"tiny-20260101-120000{more}" for more in ("", "-2", "-3")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all((tmp_path / name / "summary.json").exists() for name in names)


def test_a_folder_in_use_is_refused_to_starts_by_name_and_to_resumes(start, resume, tmp_path):
    run_dir = tmp_path / "run"
    said = []

    def watch(step, *_):
        if step == 2:
            (tmp_path / "run" / "config.yaml").rename(tmp_path / "config.yaml")
            said.append(fails(start, run_dir, train_steps=1, run_name="run"))
            (tmp_path / "config.yaml").rename(tmp_path / "run" / "config.yaml")
            said.append(fails(resume, run_dir))

    start(run_dir, watch=watch, run_name="run", train_steps=3)
    assert said == [f"{run_dir} is being trained by process {os.getpid()}; wait for it, or stop it first"] * 2
    assert read_checkpoint(run_dir / "checkpoints" / "last.ckpt").meta["step"] == 3
    resume(run_dir)  # nobody holds it any more
    assert not list(run_dir.glob(".*"))


def test_a_folder_that_a_killed_process_left_is_free(start, resume, tmp_path):
    with pytest.raises(Interrupted):
        start(tmp_path / "run", watch=lambda step, *_: os.kill(os.getpid(), 15) if step == 1 else None)
    (tmp_path / "run" / ".lock").write_text("1")
    assert resume(tmp_path / "run")["batches"] == 10


def test_a_checkpoint_says_nothing_of_the_machine(start, tmp_path, data_path):
    run_dir = tmp_path / "run"
    start(run_dir, train_steps=1)
    meta = read_checkpoint(run_dir / "checkpoints" / "last.ckpt").meta
    assert not {"data_path", "output_path", "device_target", "run_name", "data_url"} & meta["config"].keys()
    assert meta["config"]["batch_size"] == 40
    assert str(data_path) not in str(meta) and str(tmp_path) not in str(meta)
    assert os.uname().nodename not in str(meta)


def test_the_first_lines_say_where_and_of_what(start, tmp_path, data_path, quartet_log):
    start(tmp_path / "run", train_steps=1)
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    said = [line.split(" INFO ")[-1] for line in lines]
    assert "running on CPU, rank 0 of 1" in said[0]
    assert f"run folder: {tmp_path / 'run'}" in said
    assert f"data: 200 training and 70 held-out images of 4 classes from {data_path}" in said
