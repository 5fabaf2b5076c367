# SPDX-License-Identifier: Apache-2.0
"""The picture of an ablation: accuracy against epoch and against time, a line a recipe with its spread."""

import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..evaluation.drawing import BLUE, INK, QUIET, RED, headline, new_figure, save, say, shortened, style
from .results import Result

_COLOURS = (BLUE, RED, "#3d8b5f", "#b58a1b", "#7a4f9e", "#2a9d9d", "#c75b93", QUIET)
_DASHES = ("-", "--", ":")
_SHOWN = 30  # points of top-1 below the best that are worth their room


def draw_arms(results: Mapping[str, Sequence[Result]], path: str | os.PathLike) -> None:
    """Draws the mean over the runs of each arm, and a band of one standard deviation to either side.

    Time is that of training, without evaluation; at each evaluation it is the mean over the runs. The legend
    is in the order of the last accuracy.

    Args:
        results: the finished runs of each arm by its name; arms without any are left out.
        path: of the PNG file.

    Raises:
        UserError: the file cannot be written.
    """
    curves = {name: _mean_curve(runs) for name, runs in results.items() if runs}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    height = max(4.6, 1.6 + 0.2 * len(curves))
    figure = new_figure(13.0, height)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
    figure.subplots_adjust(left=0.055, right=0.76, top=1 - 0.95 / height, bottom=0.6 / height)
    minutes = max((curve[-1, 1] for curve in curves.values()), default=0) >= 300
    looks = _looks(len(curves))
    for (name, curve), look in zip(curves.items(), looks, strict=True):
        label = f"{curve[-1, 2]:.2f}  {shortened(name, 32)}"
        _draw(by_epoch, curve[:, 0], curve, look, label)
        _draw(by_time, curve[:, 1] / (60 if minutes else 1), curve, look, label)
    for axes in (by_epoch, by_time):
        style(axes)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    by_epoch.set_ylabel("top-1 (%)")
    by_epoch.set_xlabel("epoch")
    by_time.set_xlabel(f"training time ({'minutes' if minutes else 'seconds'}, without evaluation)")
    if curves:
        _limit(by_epoch, curves.values())
        _add_legend(by_time, curves)
    else:
        say(by_epoch, "no finished run yet")
    runs = sorted({len(runs) for runs in results.values() if runs})
    count = "-".join(str(n) for n in dict.fromkeys((runs[0], runs[-1]))) if runs else "0"
    of = f"plain view, mean of {count} run{'' if count == '1' else 's'} a recipe"
    band = "" if count == "1" else "; band: one standard deviation to either side"
    headline(figure, "Top-1 against epoch and time", of + band, left=0.055)
    save(figure, path)


def _mean_curve(runs: Sequence[Result]) -> np.ndarray:
    """(evaluations, 4): means over the runs of epoch, seconds and top-1, and the deviation of top-1."""
    length = min(len(run.curve) for run in runs)
    curves = np.stack([run.curve[:length] for run in runs])
    sd = curves[:, :, 2].std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(length)
    return np.column_stack([curves.mean(axis=0), sd])


def _looks(count: int) -> list[tuple[object, str]]:
    """Colour and dashes of each line: a ladder of many rungs runs through one map of colours."""
    if count <= len(_COLOURS):
        return [(colour, "-") for colour in _COLOURS[:count]]
    colours = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.95, count))
    return [(colour, _DASHES[place % len(_DASHES)]) for place, colour in enumerate(colours)]


def _draw(axes: Axes, x: np.ndarray, curve: np.ndarray, look: tuple[object, str], label: str) -> None:
    colour, dashes = look
    mean, sd = curve[:, 2], curve[:, 3]
    marker = "o" if len(x) <= 30 else None
    axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0, zorder=2)
    axes.plot(x, mean, color=colour, ls=dashes, lw=1.5, marker=marker, ms=3, label=label, zorder=3)


def _limit(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    """The early evaluations of a run may be left out below."""
    top1 = np.concatenate([curve[:, 2] for curve in curves])
    best, lowest_end = np.nanmax(top1), min(curve[-1, 2] for curve in curves)
    axes.set_ylim(
        max(0, np.nanmin(top1) - 1, min(best - _SHOWN, lowest_end - _SHOWN / 3)), min(100, best + 1.5)
    )


def _add_legend(axes: Axes, curves: Mapping[str, np.ndarray]) -> None:
    """Beside the axes, the best at the top."""
    lines, labels = axes.get_legend_handles_labels()
    ends = [curve[-1, 2] for curve in curves.values()]
    order = sorted(range(len(ends)), key=lambda place: -ends[place])
    axes.legend(
        [lines[place] for place in order],
        [labels[place] for place in order],
        title="last top-1",
        alignment="left",
        title_fontsize=9,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
        labelspacing=0.25,
    )
