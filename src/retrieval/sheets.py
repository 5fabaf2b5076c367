# SPDX-License-Identifier: Apache-2.0
"""Contact sheets of retrieval: a row a query, its picture first, then what was found, best first."""

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..common.errors import UserError
from ..common.files import atomic_path
from ..evaluation.fonts import DEFAULT, characters_of, fonts_for

_CELL, _FRAME, _GAP, _LINE = 150, 5, 10, 17  # pixels: a picture's square, its frame, between, a line of text
_INK, _QUIET, _PAPER = "#22272e", "#6b7480", "#ffffff"
_COLOURS = {True: "#2f9e5b", False: "#d03b2f", None: "#aab2bc"}


@dataclass(frozen=True)
class Shown:
    """A picture on a sheet.

    Attributes:
        image: (H, W, 3) uint8.
        name: of its file, shortened to fit.
        similarity: to the query, None for the query itself.
        right: whether it belongs to the query; None if nobody knows.
    """

    image: np.ndarray
    name: str
    similarity: float | None = None
    right: bool | None = None


def check_sheet_name(path: str | os.PathLike) -> None:
    """Refuses a name that would promise another format, before anything is embedded.

    Raises:
        UserError: the name does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"--sheet: {os.fspath(path)} given, allowed: a name that ends in .png")


def draw_sheet(
    path: str | os.PathLike, rows: Iterable[tuple[Shown, Sequence[Shown]]], *, columns: int = 8
) -> None:
    """Draws each query with its first results, right ones framed green, wrong ones red, unknown ones grey.

    Args:
        path: a .png, written whole or not at all.
        rows: the query and its results, best first; pictures are reduced as they come, so they may be read
            one row at a time.
        columns: most results of a row.

    Raises:
        UserError: there are no rows, or the file cannot be written.
    """
    drawn = [_row(query, results[:columns], columns) for query, results in rows]
    if not drawn:
        raise UserError(f"{path}: there is no query to draw a sheet of")
    width, height = drawn[0].size
    sheet = Image.new("RGB", (width, height * len(drawn) + _GAP), _PAPER)
    for number, row in enumerate(drawn):
        sheet.paste(row, (0, number * height + _GAP))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="png")


def _row(query: Shown, results: Sequence[Shown], columns: int) -> Image.Image:
    across = _CELL + 2 * _FRAME + _GAP
    row = Image.new("RGB", (across * (columns + 1) + 3 * _GAP, _CELL + 2 * _FRAME + 2 * _LINE + _GAP), _PAPER)
    pen = ImageDraw.Draw(row)
    for column, shown in enumerate([query, *results]):
        left = _GAP + across * column + (2 * _GAP if column else 0)
        _cell(row, pen, left, shown, _COLOURS[shown.right] if column else None)
    return row


def _cell(row: Image.Image, pen: ImageDraw.ImageDraw, left: int, shown: Shown, frame: str | None) -> None:
    """The picture in the middle of its square, framed closely, and two lines of text below the square."""
    height, width = shown.image.shape[:2]
    scale = _CELL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(shown.image).resize(size, Image.Resampling.BOX if scale < 1 else None)
    x, y = left + _FRAME + (_CELL - size[0]) // 2, _FRAME + (_CELL - size[1]) // 2
    if frame:
        edges = (x - _FRAME, y - _FRAME, x + size[0] + _FRAME - 1, y + size[1] + _FRAME - 1)
        pen.rectangle(edges, fill=frame)
    row.paste(small, (x, y))
    caption = "query" if shown.similarity is None else f"{shown.similarity:.3f}"
    middle, below = left + _FRAME + _CELL / 2, _CELL + 2 * _FRAME + 2
    pen.text((middle, below), caption, fill=_INK, font=_font(13), anchor="ma")
    name, font = _drawable(os.path.basename(shown.name))
    name = _shortened(name, font, _CELL + 2 * _FRAME)
    pen.text((middle, below + _LINE), name, fill=_QUIET, font=font, anchor="ma")


def _drawable(name: str) -> tuple[str, ImageFont.FreeTypeFont]:
    """The name, and the font that has most of its letters; the others, and what is not valid, become ?."""
    best = max(fonts_for([name]), key=lambda font: len(characters_of(font).intersection(name)))
    return "".join(letter if letter in characters_of(best) else "?" for letter in name), _font(11, best)


def _shortened(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The name, or its start and end if it is too long."""
    kept, text = len(name), name
    while font.getlength(text) > width:
        kept -= 1
        text = f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"
    return text


@functools.cache
def _font(size: int, font: Path = DEFAULT) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, size)
