# SPDX-License-Identifier: Apache-2.0
"""Runs on class folders with damaged images: looked at once, replaced, left out, and counted at the end."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import manifest
from src.training.look import NAME
from src.training.signals import Interrupted
from tests.helpers.cut_runs import assert_same, stop_at
from tests.helpers.errors import fails

pytestmark = pytest.mark.usefixtures("graph_mode")

KEYS = {
    "train_crop": "resize", "cutout": 0, "batch_size": 4, "eval_batch_size": 4, "epochs": 2.0,
    "log_every": 1, "damaged_images": "skip",
}  # fmt: skip


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.fixture
def folder(tmp_path):
    """8 bitmaps of each of two classes for training and 4 held out, whose damage decoding alone finds."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("ant", "bee"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (40, 36, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.bmp")
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch):
    seen, own = [], manifest.fault
    monkeypatch.setattr(manifest, "fault", lambda file: seen.append(file) or own(file))
    return seen


def test_damage_is_skipped_counted_and_a_cut_run_ends_as_the_uncut_one(
    start, resume, folder, tmp_path, opened, quartet_log
):
    """Old behaviour: the run ended at the first damaged image, and again on resume."""
    for name in ("train/ant/1", "train/ant/2", "train/bee/7", "val/bee/0"):
        cut(folder / f"{name}.bmp")
    (folder / "train" / "ant" / "empty.bmp").touch()  # which the look finds
    keys = {**KEYS, "data_path": str(folder)}
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    summary = start(whole, **keys)
    assert summary["damaged_images"] == {"train": 4, "test": 1} and summary["final"]["count"] == 7
    assert json.loads((whole / "summary.json").read_text())["damaged_images"] == {"train": 4, "test": 1}
    assert "damaged images: 4 for training" in (whole / "train.log").read_text()
    assert len(opened) == 26, "25 files, and the empty one once more"

    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(5), **keys)
    opened.clear()
    assert resume(run_dir)["damaged_images"] == {"train": 4, "test": 1}
    assert {Path(file).name for file in opened} == {"empty.bmp"}, "the manifest knows all others"
    assert_same(run_dir, whole)


def test_a_run_may_go_on_with_skip_and_other_files_are_looked_at_again(
    start, resume, folder, tmp_path, opened
):
    """What a run that has failed needs, hours later."""
    cut(folder / "train" / "ant" / "1.bmp")
    keys = {**KEYS, "data_path": str(folder), "damaged_images": "fail"}
    run_dir = tmp_path / "run"
    message = fails(start, run_dir, **keys)
    assert "ant/1.bmp: " in message and message.endswith("or use --damaged_images skip")
    seen = json.loads((run_dir / NAME).read_text())
    assert len(seen) == 24 and seen["train/ant/1.bmp"][2] is None
    opened.clear()
    (folder / "val" / "bee" / "0.bmp").touch()
    assert resume(run_dir, damaged_images="skip")["damaged_images"] == {"train": 1, "test": 0}
    assert opened == [str(folder / "val" / "bee" / "0.bmp")]


def test_the_look_can_be_turned_off(start, folder, tmp_path, opened):
    (folder / "train" / "ant" / "empty.bmp").touch()
    summary = start(tmp_path / "run", **{**KEYS, "data_path": str(folder), "epochs": 1.0}, check_images=False)
    assert not opened and not (tmp_path / "run" / NAME).exists()
    assert summary["damaged_images"]["test"] == 0 and summary["damaged_images"]["train"] <= 1


def test_a_class_without_held_out_images_is_named_and_in_no_figure(start, folder, tmp_path):
    for path in (folder / "val" / "bee").iterdir():
        path.unlink()
    summary = start(tmp_path / "run", **{**KEYS, "data_path": str(folder), "epochs": 1.0})
    assert summary["final"]["count"] == 4 and summary["recall_by_class"]["bee"] is None
    assert (tmp_path / "run" / "train.log").read_text().count("no test picture of 1 class (bee)") == 1
