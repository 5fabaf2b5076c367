# SPDX-License-Identifier: Apache-2.0
"""The learning curves of a run, as one PNG file."""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .drawing import BLUE, INK, PALE_BLUE, QUIET, RED, headline, new_figure, save, say, style
from .metrics import of_plain_view

_MANY = 150  # records of a training figure from which on their median is drawn
_SERIES = (BLUE, RED, QUIET, "#3d8b5f", "#b58a1b", "#7a4f9e")


@dataclass(frozen=True)
class Panel:
    """One of the pictures that records make, by epoch.

    Attributes:
        title: what is drawn.
        draw: into axes, with the label of the values and a legend where there are several lines.
        height: beside that of others.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 3


def panels(records: Sequence[dict]) -> list[Panel]:
    """Losses, top-1, what else there is, and the learning rate.

    Every record has `images` and `epoch`, training records `loss` and `lr`, evaluation records `eval_loss`
    and `eval_top1`. Epochs are counted in images, which grow whatever batch size a resume changed.
    What training records have under `loss_<part>`, the parts of a joint loss, has a panel of its own, and
    what evaluation records have under `monitor_*`, shares in per cent, another one. Whatever is missing
    leaves its panel empty, and says so. The last evaluation of a run with test-time augmentation is drawn by
    its plain view, as the others are. Losses that are not finite leave a gap.
    """
    records = by_epoch(records)
    last = max((record["epoch"] for record in records), default=0) or 1
    parts = [key for key in _keys(records, "loss_") if key != "loss_scale"]
    watched = _keys(records, "monitor_")
    further = [
        Panel(label, partial(_draw_several, records=records, keys=keys, label=label))
        for keys, label in ((parts, "parts of the loss"), (watched, "share (%)"))
        if keys
    ]
    made = [
        Panel("loss", partial(_draw_losses, records=records)),
        Panel("top-1", partial(_draw_top1, records=records)),
        *further,
        Panel("learning rate", partial(_draw_rate, records=records), height=1.6),
    ]
    return [replace(panel, draw=partial(_draw_styled, panel=panel, last=last)) for panel in made]


def by_epoch(records: Sequence[dict]) -> list[dict]:
    """The records of the plain view, with epochs that grow as images do."""
    images_an_epoch = _images_an_epoch(records)
    return [of_plain_view(record) | {"epoch": record["images"] / images_an_epoch} for record in records]


def training_seconds(records: Sequence[dict]) -> list[float]:
    """At each record the seconds that the batches so far took (images / speed), without evaluation."""
    total, seconds, images = [], 0.0, 0
    for record in records:
        if record.get("images_per_second"):
            seconds += (record["images"] - images) / record["images_per_second"]
            images = record["images"]
        total.append(seconds)
    return total


def learning_curves(records: Sequence[dict], path: str | os.PathLike) -> None:
    """Draws the `panels` of the records of metrics.jsonl above one another.

    Raises:
        UserError: the file cannot be written.
    """
    drawn = panels(records)
    height = 9.0 + 2.9 * (len(drawn) - 3)
    figure = new_figure(8.0, height)
    every = figure.subplots(
        len(drawn), 1, sharex=True, height_ratios=[panel.height for panel in drawn],
        gridspec_kw={"hspace": 0.12},
    )  # fmt: skip
    figure.subplots_adjust(left=0.1, right=0.96, top=1 - 1.035 / height, bottom=0.63 / height)
    for axes, panel in zip(every, drawn, strict=True):
        panel.draw(axes)
    figure.align_ylabels()
    every[-1].set_xlabel("epoch")
    headline(figure, "Learning curves", _best_in_words(records), left=0.1)
    save(figure, path)


def _draw_styled(axes: Axes, *, panel: Panel, last: float) -> None:
    panel.draw(axes)
    style(axes)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))


def _best_in_words(records: Sequence[dict]) -> str:
    epochs, values = series(by_epoch(records), "eval_top1")
    if not np.isfinite(values).any():
        return "no evaluation yet"
    best = int(np.nanargmax(values))
    text = (
        f"best top-1 {values[best]:.2f} % at epoch {epochs[best]:g} (ringed), last {values[-1]:.2f} % "
        f"at epoch {epochs[-1]:g}"
    )
    if views := [record["eval_top1"] for record in records if "eval_top1_plain" in record]:
        text += f", with test-time augmentation {views[-1]:.2f} %"
    return text


def _images_an_epoch(records: Sequence[dict]) -> float:
    """As the last record has it: the epochs of a run that never changed its batches are those it counted."""
    last = max(records, key=lambda record: record["images"], default={"images": 0})
    return last["images"] / last["epoch"] if last["images"] else 1.0


def _keys(records: Sequence[dict], prefix: str) -> list[str]:
    """The keys with that prefix, in the order in which they first come."""
    return list(dict.fromkeys(key for record in records for key in record if key.startswith(prefix)))


def series(records: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of the records that have `key`; what is not finite becomes NaN, a gap in a line."""
    chosen = [record for record in records if record.get(key) is not None]
    values = np.array([record[key] for record in chosen], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return np.array([record["epoch"] for record in chosen], dtype=np.float64), values


def _moving_median(values: np.ndarray, width: int) -> np.ndarray:
    """Median over a centred window of odd width, over what there is of it at the ends and around NaN."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(values, width // 2, constant_values=np.nan), width
    )
    known = np.isfinite(values)
    smooth = np.full_like(values, np.nan)
    smooth[known] = np.nanmedian(windows[known], axis=1)
    return smooth


def _width(values: np.ndarray) -> int:
    """Of the moving median over many records; odd."""
    return min(len(values) // 50, 100) // 2 * 2 + 1


def _line(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, color: str, label: str) -> None:
    marker = "o" if len(values) <= 60 else None
    axes.plot(
        epochs, values, color=color, lw=1.6, marker=marker, ms=3.5, label=label, zorder=3, clip_on=False
    )


def _draw_losses(axes: Axes, records: Sequence[dict]) -> None:
    axes.set_ylabel("loss (nats)")
    epochs, values = series(records, "loss")
    finite = [values[np.isfinite(values)]]
    broken = len(values) - len(finite[0])
    note = f", {broken} not finite" if broken else ""
    if len(values) >= _MANY:
        width = _width(values)
        label = f"training (median of {width} records; pale: each drawn{note})"
        axes.plot(epochs, values, color=PALE_BLUE, lw=0.8, zorder=2)
        axes.plot(epochs, _moving_median(values, width), color=BLUE, lw=1.6, label=label, zorder=3)
    elif len(values):
        _line(axes, epochs, values, color=BLUE, label="training" + note)
    epochs, values = series(records, "eval_loss")
    if len(values):
        _line(axes, epochs, values, color=RED, label="evaluation")
        finite.append(values[np.isfinite(values)])
    shown = np.concatenate(finite)
    if not shown.size:
        say(axes, "no losses yet")
        return
    if shown.min() > 0 and shown.max() > 100 * shown.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif shown.min() >= 0:
        axes.set_ylim(0, shown.max() * 1.05 or 1)
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        ncols=2,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderpad=0,
    )


def _draw_top1(axes: Axes, records: Sequence[dict]) -> None:
    axes.set_ylabel("top-1 (%)")
    epochs, values = series(records, "eval_top1")
    if not np.isfinite(values).any():
        say(axes, "no evaluation yet")
        return
    best = int(np.nanargmax(values))
    _line(axes, epochs, values, color=RED, label="evaluation")
    axes.plot(epochs[best], values[best], "o", ms=8, mfc="none", mec=INK, mew=1.2, zorder=4, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    low, high = np.nanmin(values), values[best]
    margin = max(0.08 * (high - low), 1)
    axes.set_ylim(max(0, low - margin), min(100, high + margin))


def _draw_several(axes: Axes, records: Sequence[dict], keys: Sequence[str], *, label: str) -> None:
    """A line for each key, which its name without the first word stands for."""
    axes.set_ylabel(label)
    highest = 0.0
    for key, color in zip(keys, itertools.cycle(_SERIES)):
        epochs, values = series(records, key)
        if len(values) >= _MANY:
            values = _moving_median(values, _width(values))
        _line(axes, epochs, values, color=color, label=key.partition("_")[2].replace("_", " "))
        highest = np.nanmax(values, initial=highest)
    axes.set_ylim(0, highest * 1.05 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _draw_rate(axes: Axes, records: Sequence[dict]) -> None:
    axes.set_ylabel("learning rate")
    epochs, values = series(records, "lr")
    if not len(values):
        say(axes, "no learning rates yet")
        return
    _line(axes, epochs, values, color=QUIET, label="learning rate")
    axes.set_ylim(0, np.nanmax(values, initial=0) * 1.1 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
