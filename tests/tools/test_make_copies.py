"""From a user's folder to a folder of copies, and bad input in one line."""

import numpy as np
import pytest
from PIL import Image

from src.tools import make_copies


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
        f"{tmp_path / 'all'}: 4 originals and 6 copies of each",
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
