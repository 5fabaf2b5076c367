# SPDX-License-Identifier: Apache-2.0
"""Which file a path means, and of which kind it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.checkpoint.formats import READERS, check_output, find_weights, is_foreign, is_weights
from src.common.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "r1" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("step_00000010.ckpt", "last.ckpt", "best.ckpt"):
        (folder / name).touch()
    return folder.parent


def test_a_run_means_its_best_checkpoint(run_dir):
    best = run_dir / "checkpoints" / "best.ckpt"
    assert find_weights(run_dir) == find_weights(str(best.parent)) == find_weights(best) == best
    best.unlink()  # no evaluation was finite yet
    assert find_weights(run_dir) == run_dir / "checkpoints" / "last.ckpt"


def test_another_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError) as error:
        find_weights("photos")
    assert f"photos is a folder without checkpoints/best.ckpt and last.ckpt (relative to {tmp_path})" in str(
        error.value
    )


def test_kinds(tmp_path):
    assert {suffix for suffix in READERS if is_foreign(f"a{suffix}")} == READERS.keys() - {".ckpt"}
    assert is_weights("a.ckpt") and is_weights(tmp_path) and is_weights("a.npz")
    assert is_weights("A.NPZ") and is_foreign("A.NPZ")
    assert not is_weights("a.mindir") and not is_weights("a.json")
    assert not is_foreign("LICENSE")
    assert check_output("new.ckpt") == Path("new.ckpt")
    with pytest.raises(UserError, match=r"output: new\.npz given, allowed: a name that ends with \.ckpt"):
        check_output("new.npz")


def test_mindspore_is_not_imported_to_tell_kinds():
    code = "import src.checkpoint.formats, sys; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
