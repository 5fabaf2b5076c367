# SPDX-License-Identifier: Apache-2.0
"""How the pictures of a run look. Figures are built as objects, without pyplot: nothing else changes."""

import os
import unicodedata

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..common.files import atomic_path
from .fonts import drawable

DPI = 120
INK, QUIET, FAINT = "#22272e", "#6b7480", "#e3e6ea"
BLUE, PALE_BLUE, RED = "#1f5a96", "#b4cbe2", "#b5432a"


def letters(text: str) -> int:
    """How wide a text is, in letters; Chinese, Japanese and Korean ones are twice as wide."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def shortened(name: str, length: int = 20) -> str:
    """A name that fits in so many letters, cut at its end."""
    if letters(name) <= length:
        return name
    while letters(name) >= length:
        name = name[:-1]
    return f"{name}…"


def new_figure(width: float, height: float) -> Figure:
    """An empty one of so many inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def headline(figure: Figure, title: str, *lines: str, left: float) -> None:
    """A title at the top, and smaller lines below it; `left` is a share of the width."""
    height = figure.get_figheight()
    figure.text(left, 1 - 0.22 / height, title, va="top", fontsize=13, fontweight="bold", color=INK)
    drawn, fonts = drawable(lines, lambda place: ascii(lines[place]))
    how = {"va": "top", "fontsize": 9.5, "color": QUIET, "parse_math": False, "fontfamily": fonts}
    for number, line in enumerate(drawn):
        figure.text(left, 1 - (0.5 + 0.2 * number) / height, line, **how)


def style(axes: Axes) -> None:
    """Without a frame, and with a faint grid of the values."""
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(QUIET)
    axes.grid(axis="y", color=FAINT, lw=0.8, zorder=0)
    axes.tick_params(which="both", colors=QUIET, labelsize=9, length=0, pad=6)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.label.set_color(INK)


def say(axes: Axes, text: str) -> None:
    """Writes across empty axes what is missing."""
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET, fontsize=11)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG file, whole or not at all. Raises UserError where it cannot be written."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
