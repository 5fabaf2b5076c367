# SPDX-License-Identifier: Apache-2.0
"""Sheets of queries and results: which colour frames what, long names, odd shapes, and whole files."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.retrieval import sheets
from src.retrieval.sheets import Shown, draw_sheet

GREEN, RED, GREY = (0x2F, 0x9E, 0x5B), (0xD0, 0x3B, 0x2F), (0xAA, 0xB2, 0xBC)


def shown(height=60, width=60, name="picture.jpg", **facts):
    return Shown(np.full((height, width, 3), 250, np.uint8), name, **facts)


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_frames_say_right_wrong_and_unknown(tmp_path):
    results = [shown(similarity=0.9, right=right) for right in (True, False, None)]
    draw_sheet(tmp_path / "sheet.png", [(shown(), results)], columns=3)
    pixels = pixels_of(tmp_path / "sheet.png")
    across = [(pixels == colour).all(axis=2).any(axis=0).nonzero()[0] for colour in (GREEN, RED, GREY)]
    assert pixels.shape[1] / 4 < across[0].min()
    for left, right in pairwise(across):
        assert left.max() < right.min()


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1), (1, 1), (400, 30)])
def test_any_shape_fits_its_square(tmp_path, height, width):
    result = shown(height, width, similarity=0.5, right=True)
    draw_sheet(tmp_path / "sheet.png", [(shown(height, width), [result])], columns=1)
    rows, columns = (pixels_of(tmp_path / "sheet.png") == GREEN).all(axis=2).nonzero()
    side = sheets._CELL + 2 * sheets._FRAME
    assert np.ptp(rows) < side and np.ptp(columns) < side
    assert max(np.ptp(rows), np.ptp(columns)) == side - 1


def test_rows_are_alike_and_extra_results_are_left_out(tmp_path):
    rows = [(shown(), [shown(similarity=0.1, right=False)] * count) for count in (0, 1, 5)]
    draw_sheet(tmp_path / "sheet.png", iter(rows), columns=2)
    height, width, _ = pixels_of(tmp_path / "sheet.png").shape
    draw_sheet(tmp_path / "one.png", rows[:1], columns=2)
    one_height, one_width, _ = pixels_of(tmp_path / "one.png").shape
    assert width == one_width and height - sheets._GAP == 3 * (one_height - sheets._GAP)


def test_long_names_keep_both_ends():
    font = sheets._font(11)
    short = sheets._shortened("a" * 100 + "z.jpg", font, 120)
    assert short.startswith("aaa") and short.endswith("z.jpg") and "…" in short
    assert font.getlength(short) <= 120
    assert sheets._shortened("fits.jpg", font, 120) == "fits.jpg"


def test_no_rows_and_no_folder_are_errors_that_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="no query"):
        draw_sheet(tmp_path / "sheet.png", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        draw_sheet(tmp_path / "file" / "sheet.png", [(shown(), [])])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
