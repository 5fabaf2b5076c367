"""The pictures of a run: learning curves, a confusion matrix and the worst mistakes, each one PNG file.

Figures are built as objects, without pyplot, so that drawing changes nothing outside this module.
"""

import itertools
import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from ..common.files import atomic_path
from .evaluate import Mistake

_DPI = 120
_MANY = 150  # records of a training figure from which on their median is drawn
_CELL = 224  # pixels an image gets on the sheet of mistakes
_INK, _QUIET, _FAINT = "#22272e", "#6b7480", "#e3e6ea"
_BLUE, _PALE_BLUE, _RED = "#1f5a96", "#b4cbe2", "#b5432a"
_SERIES = (_BLUE, _RED, _QUIET, "#3d8b5f", "#b58a1b", "#7a4f9e")


def learning_curves(records: Sequence[dict], path: str | os.PathLike) -> None:
    """Draws losses, top-1 and learning rate by epoch, from the records of metrics.jsonl.

    Every record has `images` and `epoch`, training records `loss` and `lr`, evaluation records `eval_loss`
    and `eval_top1`. Epochs are counted in images, which grow whatever batch size a resume changed.
    What training records have under `loss_<part>`, the parts of a joint loss, has a panel of its own, and
    what evaluation records have under `monitor_*`, shares in per cent, another one. Whatever is missing
    leaves its panel empty, and says so. Losses that are not finite leave a gap.

    Raises:
        UserError: the file cannot be written.
    """
    images_an_epoch = _images_an_epoch(records)
    records = [{**record, "epoch": record["images"] / images_an_epoch} for record in records]
    parts = [key for key in _keys(records, "loss_") if key != "loss_scale"]
    watched = _keys(records, "monitor_")
    further = [
        (keys, label) for keys, label in ((parts, "parts of the loss"), (watched, "share (%)")) if keys
    ]
    ratios = (3, 3, *(3 for _ in further), 1.6)
    height = 9.0 + 2.9 * len(further)
    figure = _figure(8.0, height)
    losses, accuracies, *others, rates = figure.subplots(
        len(ratios), 1, sharex=True, height_ratios=ratios, gridspec_kw={"hspace": 0.12}
    )
    figure.subplots_adjust(left=0.1, right=0.96, top=1 - 1.035 / height, bottom=0.63 / height)
    _draw_losses(losses, records)
    headline = _draw_top1(accuracies, records)
    for axes, (keys, label) in zip(others, further, strict=True):
        _draw_several(axes, records, keys, label=label)
    _draw_rate(rates, records)
    for axes in (losses, accuracies, *others, rates):
        _style(axes)
    figure.align_ylabels()
    last = max((record["epoch"] for record in records), default=0)
    rates.set_xlim(0, last if last > 0 else 1)
    rates.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))
    rates.set_xlabel("epoch")
    _headline(figure, "Learning curves", headline, left=0.1)
    _save(figure, path)


def _images_an_epoch(records: Sequence[dict]) -> float:
    """As the last record has it: the epochs of a run that never changed its batches are those it counted."""
    last = max(records, key=lambda record: record["images"], default={"images": 0})
    return last["images"] / last["epoch"] if last["images"] else 1.0


def _keys(records: Sequence[dict], prefix: str) -> list[str]:
    """The keys with that prefix, in the order in which they first come."""
    return list(dict.fromkeys(key for record in records for key in record if key.startswith(prefix)))


def _series(records: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
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
    epochs, values = _series(records, "loss")
    finite = [values[np.isfinite(values)]]
    broken = len(values) - len(finite[0])
    note = f", {broken} not finite" if broken else ""
    if len(values) >= _MANY:
        width = _width(values)
        label = f"training (median of {width} records; pale: each{note})"
        axes.plot(epochs, values, color=_PALE_BLUE, lw=0.8, zorder=2)
        axes.plot(epochs, _moving_median(values, width), color=_BLUE, lw=1.6, label=label, zorder=3)
    elif len(values):
        _line(axes, epochs, values, color=_BLUE, label="training" + note)
    epochs, values = _series(records, "eval_loss")
    if len(values):
        _line(axes, epochs, values, color=_RED, label="evaluation")
        finite.append(values[np.isfinite(values)])
    shown = np.concatenate(finite)
    if not shown.size:
        _say(axes, "no losses yet")
        return
    if shown.min() > 0 and shown.max() > 100 * shown.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif shown.min() >= 0:
        axes.set_ylim(0, shown.max() * 1.05 or 1)
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        ncols=2,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderpad=0,
    )


def _draw_top1(axes: Axes, records: Sequence[dict]) -> str:
    axes.set_ylabel("top-1 (%)")
    epochs, values = _series(records, "eval_top1")
    if not np.isfinite(values).any():
        _say(axes, "no evaluation yet")
        return "no evaluation yet"
    best = int(np.nanargmax(values))
    _line(axes, epochs, values, color=_RED, label="evaluation")
    axes.plot(epochs[best], values[best], "o", ms=8, mfc="none", mec=_INK, mew=1.2, zorder=4, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    low, high = np.nanmin(values), values[best]
    margin = max(0.08 * (high - low), 1)
    axes.set_ylim(max(0, low - margin), min(100, high + margin))
    return (
        f"best top-1 {high:.2f} % at epoch {epochs[best]:g} (ringed), last {values[-1]:.2f} % "
        f"at epoch {epochs[-1]:g}"
    )


def _draw_several(axes: Axes, records: Sequence[dict], keys: Sequence[str], *, label: str) -> None:
    """A line for each key, which its name without the first word stands for."""
    axes.set_ylabel(label)
    highest = 0.0
    for key, color in zip(keys, itertools.cycle(_SERIES)):
        epochs, values = _series(records, key)
        if len(values) >= _MANY:
            values = _moving_median(values, _width(values))
        _line(axes, epochs, values, color=color, label=key.partition("_")[2].replace("_", " "))
        highest = np.nanmax(values, initial=highest)
    axes.set_ylim(0, highest * 1.05 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK)


def _draw_rate(axes: Axes, records: Sequence[dict]) -> None:
    axes.set_ylabel("learning rate")
    epochs, values = _series(records, "lr")
    if not len(values):
        _say(axes, "no learning rates yet")
        return
    _line(axes, epochs, values, color=_QUIET, label="learning rate")
    axes.set_ylim(0, np.nanmax(values, initial=0) * 1.1 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def confusion_matrix(confusion: np.ndarray, class_names: Sequence[str], path: str | os.PathLike) -> None:
    """Draws a (K, K) matrix of counts, rows true and columns predicted.

    Colour is the share of the row, so that rare classes show as well as frequent ones. Up to 20 classes the
    counts are written in the cells; above 40 only some of the classes are named along the axes.

    Raises:
        UserError: the file cannot be written.
        ValueError: the matrix is not square, or the names are not K.
    """
    confusion = np.asarray(confusion)
    size = len(class_names)
    if confusion.shape != (size, size):
        raise ValueError(f"a confusion matrix of shape {confusion.shape} does not fit {size} class names")
    images = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100 * confusion, images, out=np.full((size, size), np.nan), where=images > 0)

    names = [_short(name) for name in class_names]
    label_size = 9.0 if size <= 20 else 7.0
    margin = 0.75 + 0.0085 * label_size * max(
        map(len, names)
    )  # inches: room for the names, axis title outside
    side = min(max(0.55 * size, 3.6), 9.0)
    width, height = margin + side + 1.3, margin + side + 0.95
    figure = _figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    bar = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.16 / width, side / height))

    # The square root of the share: confusions of a few per cent, the ones looked for, would vanish else.
    scale = PowerNorm(0.5, vmin=0, vmax=100)
    axes.set_facecolor(_FAINT)
    cells = axes.imshow(shares, cmap="Blues", norm=scale, interpolation="nearest", aspect="auto")
    colorbar = figure.colorbar(cells, cax=bar, ticks=FixedLocator([0, 1, 5, 10, 25, 50, 75, 100]))
    colorbar.ax.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    colorbar.set_label("share of the true class", color=_QUIET, fontsize=9)
    colorbar.ax.tick_params(colors=_QUIET, labelsize=8, length=2)
    colorbar.outline.set_visible(False)

    step = 1 if size <= 40 else 5 * math.ceil(size / 200)
    ticks = range(0, size, step)
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90, parse_math=False)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], parse_math=False)
    axes.tick_params(colors=_INK, labelsize=label_size, length=0 if step == 1 else 3)
    for side_name in axes.spines:
        axes.spines[side_name].set_visible(False)
    axes.set_xlabel("predicted class", color=_QUIET, fontsize=10, labelpad=8)
    axes.set_ylabel("true class", color=_QUIET, fontsize=10, labelpad=8)
    if size <= 20:
        _write_counts(axes, confusion, shares)
    _headline(figure, "Confusion matrix", _accuracy(confusion), left=margin / width)
    _save(figure, path)


def _write_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(confusion), strict=True):
        count = f"{confusion[row, column]:,}"
        axes.text(
            column,
            row,
            count,
            ha="center",
            va="center",
            fontsize=9 if len(count) <= 5 else 7,
            color="white" if shares[row, column] > 30 else _INK,
        )


def _accuracy(confusion: np.ndarray) -> str:
    total = int(confusion.sum())
    if not total:
        return "no evaluation yet"
    right = int(np.trace(confusion))
    note = "" if confusion.any(axis=1).all() else "; grey rows: no images"
    return f"accuracy {100 * right / total:.2f} %: {right:,} of {total:,} images{note}"


def worst_mistakes(
    mistakes: Sequence[Mistake],
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    path: str | os.PathLike,
) -> None:
    """Draws a sheet of misclassified images, each with its true class and what was predicted instead.

    Args:
        mistakes: with images (C, H, W), C 1 or 3, normalised as (pixel - mean) / std, or (H, W, 3) uint8.
        class_names: by class.
        mean: per channel, on the scale 0..255.
        std: per channel, on the scale 0..255.
        path: a PNG file.

    Raises:
        UserError: the file cannot be written.
    """
    columns = min(max(math.ceil(math.sqrt(len(mistakes))), 3), 6)
    rows = max(math.ceil(len(mistakes) / columns), 1)
    # Inches, and whole pixels: an image of 28, 32, 56 or 224 pixels then grows by a whole number.
    cell, gap, caption, top, edge = _CELL / _DPI, 0.4, 0.5, 0.85, 0.3
    width = 2 * edge + columns * cell + (columns - 1) * gap
    height = top + rows * (cell + caption) + edge / 2
    figure = _figure(width, height)
    for place, mistake in enumerate(mistakes):
        row, column = divmod(place, columns)
        left = edge + column * (cell + gap)
        bottom = height - top - row * (cell + caption) - cell
        axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
        pixels = _pixels(mistake.image, mean, std)
        # Few pixels are shown as they are; many are averaged, since skipping some would draw false patterns.
        sharp = max(pixels.shape[:2]) <= _CELL
        axes.imshow(pixels, interpolation="nearest" if sharp else "hanning")
        axes.set_axis_off()
        predicted = (
            f"predicted: {_short(class_names[mistake.prediction], 16)} {100 * mistake.probability:.1f} %"
        )
        lines = ((f"truth: {_short(class_names[mistake.label])}", _INK), (predicted, _RED))
        for line, (text, color) in enumerate(lines):
            figure.text(
                left / width,
                (bottom - 0.06 - 0.16 * line) / height,
                text,
                va="top",
                fontsize=7.5,
                color=color,
                parse_math=False,
            )
    if mistakes:
        headline = "the wrong predictions with the highest loss, highest first"
    else:
        headline = "no mistakes"
        figure.text(0.5, 0.45, "no mistakes to show", ha="center", fontsize=12, color=_QUIET)
    _headline(figure, "Worst mistakes", headline, left=edge / width)
    _save(figure, path)


def _pixels(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(C, H, W) normalised -> (H, W, 3) uint8; one channel is shown as grey. Pixels stay as they are."""
    if image.dtype == np.uint8:
        return image
    channels = np.moveaxis(np.asarray(image, dtype=np.float64), 0, -1)
    pixels = np.clip(np.rint(channels * np.asarray(std) + np.asarray(mean)), 0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, title: str, subtitle: str, *, left: float) -> None:
    height = figure.get_figheight()
    figure.text(left, 1 - 0.22 / height, title, va="top", fontsize=13, fontweight="bold", color=_INK)
    figure.text(left, 1 - 0.5 / height, subtitle, va="top", fontsize=9.5, color=_QUIET)


def _style(axes: Axes) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_QUIET)
    axes.grid(axis="y", color=_FAINT, lw=0.8, zorder=0)
    axes.tick_params(which="both", colors=_QUIET, labelsize=9, length=0, pad=6)
    axes.yaxis.label.set_color(_INK)
    axes.xaxis.label.set_color(_INK)


def _say(axes: Axes, text: str) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_QUIET, fontsize=11)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
