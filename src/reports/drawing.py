# SPDX-License-Identifier: Apache-2.0
"""Matplotlib's figures as SVG inside a page, in colours that the page sets for light and dark."""

import io
import re
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ..evaluation.calibration import Calibration
from ..evaluation.curves import Panel
from ..evaluation.drawing import BLUE, FAINT, INK, PALE_BLUE, QUIET, RED, new_figure, say, style

LINES = (BLUE, RED, "#3d8b5f", "#b58a1b", "#7a4f9e", "#2a9d9d", "#c75b93", QUIET)
DASHES = ("-", "--", ":")
# The colours of the program's pictures, and the names that they have in the page's style sheet.
COLOURS = {
    INK: "ink", QUIET: "quiet", FAINT: "faint", BLUE: "blue", PALE_BLUE: "pale", RED: "red",
    "#3d8b5f": "green", "#b58a1b": "gold", "#7a4f9e": "violet", "#2a9d9d": "teal", "#c75b93": "pink",
}  # fmt: skip
# From nothing to blue, so that a cell without confusions has the colour of the page.
SHADES = LinearSegmentedColormap.from_list("shades", [to_rgba(BLUE, 0), to_rgba(BLUE, 1)])
FONTS = ("DejaVu Sans",)  # what the room for texts is measured with; the page has its own
_WIDTH, _HEIGHT = 5.8, 3.0  # inches
_STYLES = re.compile(r' style="[^"]*"')
_NAMES = re.compile(r'(?<=<g) id="[^"]*"(?=/?>)')  # the same in every figure, and nothing refers to them
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def as_svg(figure: Figure, name: str) -> Markup:
    """A figure as an `svg` element whose texts are texts, and whose background is the page's.

    Args:
        name: another one for each figure of a page: what its parts are named by hangs on it.
    """
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    text = file.getvalue()
    text = _NAMES.sub("", text[text.index("<svg") :])
    return Markup(_STYLES.sub(_themed, text))  # Matplotlib has escaped the texts


def _themed(style_of: re.Match) -> str:
    text = style_of.group()
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def panel_svg(panel: Panel, name: str) -> Markup:
    """One panel of the learning curves as a picture of its own."""
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.add_axes((0.13, 0.17, 0.84, 0.71))
    panel.draw(axes)
    axes.set_xlabel("epoch")
    return as_svg(figure, name)


def calibration_svg(calibration: Calibration, name: str) -> Markup:
    """How often predictions of a probability are right, above how many images have it."""
    figure = new_figure(_WIDTH, 4.2)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.14})
    figure.subplots_adjust(left=0.13, right=0.97, top=0.97, bottom=0.12)
    probability, right, images = np.array(list(calibration.bins())).reshape(-1, 3).T
    axes.plot([0, 100], [0, 100], color=QUIET, ls="--", lw=1.2, zorder=2)
    axes.plot(probability, right, color=BLUE, marker="o", ms=5, lw=1.6, zorder=3, clip_on=False)
    width = 100 / len(calibration.images)
    places = width * (np.flatnonzero(calibration.images) + 0.5)
    counts.bar(places, 100 * images / max(images.sum(), 1), width=0.85 * width, color=BLUE, zorder=3)
    for each in (axes, counts):
        style(each)
        each.set_xlim(0, 100)
        each.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_ylim(0, 100)
    axes.set_ylabel("predicted right")
    counts.set_ylabel("images")
    counts.yaxis.set_major_locator(MaxNLocator(nbins=3))
    counts.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    counts.set_xlabel("probability of the prediction")
    return as_svg(figure, name)


def look(place: int) -> tuple[str, str]:
    """Colour and dashes of one of many lines."""
    return LINES[place % len(LINES)], DASHES[place // len(LINES) % len(DASHES)]


def bands_svg(curves: Sequence[np.ndarray | None], *, label: str, name: str) -> Markup:
    """Curves over each other, each with a band of one standard deviation to either side.

    Args:
        curves: (places, 3) each: epoch, mean, standard deviation; None: nothing to draw in this look.
        label: of the values.
        name: as of `as_svg`.
    """
    figure = new_figure(_WIDTH, 3.6)
    axes = figure.add_axes((0.13, 0.14, 0.84, 0.82))
    axes.set_ylabel(label)
    there = [(place, curve) for place, curve in enumerate(curves) if curve is not None and len(curve)]
    for place, curve in there:
        colour, dashes = look(place)
        epochs, mean, sd = curve.T
        marker, size = "o" if len(epochs) <= 30 else None, 3 if len(epochs) > 1 else 5
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0, zorder=2)
        how = {"marker": marker, "ms": size, "zorder": 3, "clip_on": False}
        axes.plot(epochs, mean, color=colour, ls=dashes, lw=1.5, **how)
    style(axes)
    axes.set_xlabel("epoch")
    axes.set_xlim(0, max((curve[-1, 0] for _, curve in there), default=0) or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not there:
        say(axes, "no records yet")
    return as_svg(figure, name)
