"""A retrieval task without some of its pictures, and pictures that are cut and turned."""

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.retrieval.sets import Picture, task


def test_without_some_pictures():
    found = task("holidays", "abcde", "ad", [[0, 1, 2], [3, 4]], junk=[[0], [3]], kinds=("x", "y"))
    left = found.without({found.database[0], found.database[2]})
    assert ["".join(p.file for p in some) for some in (left.database, left.queries)] == ["bde", "d"]
    truth = left.truths[""]
    assert [[*some] for some in (*truth.positives, *truth.junk)] == [[1, 2], [1]]
    assert left.kinds == ("y",)
    only = found.without({found.database[4]}).truths[""]
    assert [[*some] for some in only.positives] == [[0, 1, 2], [3]]


def test_a_picture_is_cut_and_turned(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    turned = Picture(str(file), turns=1).read()
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, np.asarray(Image.fromarray(pixels).rotate(90, expand=True)))
    box = (1.6, -3.0, 5.4, 99.0)
    np.testing.assert_array_equal(Picture(str(file), box=box).read(), pixels[:, 2:5])
    with pytest.raises(UserError, match=r"a\.png: the query's box .* is outside"):
        Picture(str(file), box=(20, 0, 30, 5)).read()
