# SPDX-License-Identifier: Apache-2.0
"""The checkpoints folder: which files stay, under which names, and what is read when some are damaged."""

import errno
import os

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.checkpoint.folder import CheckpointFolder
from src.common.errors import UserError


def parameters(step):
    """The state after a step: every number says which."""
    return [
        ms.Parameter(np.full((3, 2), step, np.float32), name="weight"),
        ms.Parameter(ms.Tensor(step, ms.int32), name="train.updates"),
    ]


def save(folder, step, *, best=False):
    path = folder.save(parameters(step), step=step, meta={"config": {"lr": 0.1}})
    if best:
        folder.name_best(path)
    return path


def steps(folder):
    """The step that the file under each name holds; its arrays must be of the same one."""
    found = {}
    for path in folder.folder.iterdir():
        checkpoint = read_checkpoint(path)
        step = checkpoint.meta["step"]
        np.testing.assert_array_equal(checkpoint.arrays["weight"], np.full((3, 2), step, np.float32))
        found[path.name] = step
    return found


def damage(path):
    """Flips a bit in the middle; other names of the same file keep theirs."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def test_a_checkpoint_comes_back_as_it_was(folder):
    path = save(folder, 7)
    assert path.name == "step_00000007.ckpt"
    checkpoint = folder.newest()
    assert checkpoint.meta == {"config": {"lr": 0.1}, "step": 7}
    assert checkpoint.arrays.keys() == {"weight", "train.updates"}
    assert checkpoint.arrays["train.updates"].dtype == np.int32
    assert checkpoint.arrays["train.updates"].shape == ()
    assert checkpoint.arrays["train.updates"] == 7


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay_and_last_is_one_of_them(tmp_path, keep):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=keep)
    for step in range(10, 60, 10):
        save(folder, step)
        kept = range(max(10, step - 10 * (keep - 1)), step + 1, 10)
        assert steps(folder) == {"last.ckpt": step, **{f"step_{s:08d}.ckpt": s for s in kept}}
    assert os.path.samefile(folder.folder / "last.ckpt", folder.folder / "step_00000050.ckpt")


def test_best_outlives_its_step_and_moves_only_when_told(folder):
    save(folder, 10, best=True)
    for step in (20, 30, 40):
        save(folder, step)
    assert steps(folder) == {
        "best.ckpt": 10, "last.ckpt": 40, "step_00000030.ckpt": 30, "step_00000040.ckpt": 40,
    }  # fmt: skip
    save(folder, 50, best=True)
    assert steps(folder)["best.ckpt"] == 50


def test_saving_a_step_again_leaves_the_best_as_it_was(folder):
    save(folder, 10, best=True)
    folder.save(parameters(10), step=10, meta={"config": {}, "again": True})
    assert steps(folder) == {"best.ckpt": 10, "last.ckpt": 10, "step_00000010.ckpt": 10}
    assert read_checkpoint(folder.folder / "last.ckpt").meta["again"]
    assert "again" not in read_checkpoint(folder.folder / "best.ckpt").meta


def test_the_best_is_another_name_of_the_saved_file(folder):
    path = save(folder, 10, best=True)
    assert os.path.samefile(path, folder.folder / "best.ckpt")
    folder.name_best(folder.folder / "last.ckpt")
    folder.name_best(folder.folder / "best.ckpt")  # what a run came back from, where all others are damaged
    assert steps(folder) == {"best.ckpt": 10, "last.ckpt": 10, "step_00000010.ckpt": 10}


def test_steps_that_a_run_fell_back_behind_are_not_taken_for_newer_ones(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=1)
    save(folder, 30)
    save(folder, 20)
    assert steps(folder) == {"last.ckpt": 20, "step_00000020.ckpt": 20}


def test_a_damaged_last_falls_back_with_a_warning_that_names_it(folder, quartet_log):
    for step in (10, 20):
        save(folder, step)
    damage(folder.folder / "last.ckpt")
    assert folder.newest().meta["step"] == 20
    (warning,) = quartet_log
    assert warning.levelname == "WARNING"
    assert f"{folder.folder / 'last.ckpt'} is damaged" in warning.getMessage()

    damage(folder.folder / "step_00000020.ckpt")
    assert folder.newest().meta["step"] == 10


def test_best_is_the_last_resort(folder, quartet_log):
    save(folder, 5, best=True)
    for step in (10, 20):
        save(folder, step)
    for name in ("last.ckpt", "step_00000020.ckpt", "step_00000010.ckpt"):
        damage(folder.folder / name)
    assert folder.newest().meta["step"] == 5
    assert len(quartet_log) == 3


@pytest.mark.parametrize("ruin", [damage, lambda path: path.write_bytes(b"")], ids=["bit", "empty"])
def test_all_damaged_is_an_error_that_names_the_folder(folder, ruin):
    save(folder, 10, best=True)
    for path in folder.folder.iterdir():
        ruin(path)
    with pytest.raises(UserError, match="start the run anew") as error:
        folder.newest()
    assert str(folder.folder) in str(error.value)


def test_without_checkpoints(folder):
    assert not folder.has_any()
    folder.folder.mkdir()
    (folder.folder / ".quartet-tmp-step_00000010.ckpt-abc").mkdir()
    (folder.folder / ".quartet-tmp-step_00000010.ckpt-abc" / "step_00000010.ckpt").write_bytes(b"half")
    assert not folder.has_any()
    with pytest.raises(UserError, match="no whole checkpoint"):
        folder.newest()


def test_where_hard_links_are_refused_the_names_are_copies(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(folder, 10, best=True)
    save(folder, 20)
    assert steps(folder) == {
        "best.ckpt": 10, "last.ckpt": 20, "step_00000010.ckpt": 10, "step_00000020.ckpt": 20,
    }  # fmt: skip
    last, step = folder.folder / "last.ckpt", folder.folder / "step_00000020.ckpt"
    assert not os.path.samefile(last, step)
    assert last.read_bytes() == step.read_bytes()


def test_a_disk_that_fills_up_leaves_the_earlier_checkpoints_whole(folder, monkeypatch):
    save(folder, 10, best=True)
    before = steps(folder)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"step_00000020\.ckpt: No space left on device"):
            save(folder, 20, best=True)
    assert steps(folder) == before
    assert not list(folder.folder.glob(".*"))


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(UserError, match=r"checkpoints.step_00000010\.ckpt"):
        save(CheckpointFolder(tmp_path / "checkpoints", keep=1), 10)
