# SPDX-License-Identifier: Apache-2.0
"""From a user's folder to a folder of copies, and bad input in one line."""

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.tools import make_copies
from tests.helpers.folders import unreadable


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        path = tmp_path / "pictures" / name / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


def test_all_kinds_of_all_pictures_and_some_of_some(pictures, tmp_path, capsys):
    make_copies.main([str(pictures), str(tmp_path / "all")])
    assert capsys.readouterr().out.splitlines() == [
        f"4 pictures in {pictures}",
        "left out: nothing",
        f"{tmp_path / 'all'}: 4 originals and 6 copies of each, 0 unreadable pictures left out",
    ]
    originals = sorted((tmp_path / "all" / "original").iterdir())
    assert [path.read_bytes() for path in originals] == [
        (pictures / name / f"{name}.png").read_bytes() for name in "abcd"
    ]
    assert len(list((tmp_path / "all").glob("*/*.jpg"))) == 24
    chosen = set()
    for seed in "0123":
        out = tmp_path / seed
        make_copies.main([str(pictures), str(out), "--limit", "2", "--seed", seed, "--kinds", "blur"])
        assert sorted(path.name for path in (out / "blur").iterdir()) == ["200003.jpg", "200103.jpg"]
        chosen.add(tuple(path.read_bytes() for path in sorted((out / "original").iterdir())))
    assert len(chosen) > 1


def test_a_damaged_picture_is_named_left_out_and_counted(pictures, tmp_path, capsys):
    """Old behaviour: the first one ended it, and nothing was left."""
    cut = pictures / "b" / "b.png"
    cut.write_bytes(cut.read_bytes()[:100])
    make_copies.main([str(pictures), str(tmp_path / "out"), "--kinds", "blur", "strong"])
    printed = capsys.readouterr()
    assert printed.out.endswith("3 originals and 2 copies of each, 1 unreadable picture left out\n")
    assert printed.err.startswith(f"left out: {cut}: ") and len(printed.err.splitlines()) == 1
    numbers = sorted(path.stem for path in (tmp_path / "out" / "original").iterdir())
    assert numbers == ["200000", "200200", "200300"]
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="no picture can be read"):
        make_copies.main([str(pictures), str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_read_is_passed_over_and_told_at_the_end(pictures, tmp_path, monkeypatch):
    unreadable(monkeypatch, pictures / "a")
    with pytest.raises(UserError, match=r"cannot read 1 folder .*a \(Permission denied"):
        make_copies.main([str(pictures), str(tmp_path / "all")])
    assert len(list((tmp_path / "all" / "original").iterdir())) == 3
