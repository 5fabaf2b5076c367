# SPDX-License-Identifier: Apache-2.0
"""The pictures of an evaluation: confusion matrix, recall by class and worst mistakes, each one PNG file."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter

from ..data.folders import printable
from .drawing import BLUE, DPI, FAINT, INK, QUIET, RED, headline, letters, new_figure, save, shortened, style
from .fonts import drawable
from .metrics import SMALL, Totals, interval

if TYPE_CHECKING:
    from .evaluate import Evaluation, Example

log = logging.getLogger("quartet")

WORST = 25  # mistakes on the sheet
_BARS = 40  # classes whose recall is drawn
_CELL = 224  # pixels an image gets on the sheet of mistakes


def write_pictures(
    evaluation: "Evaluation",
    folder: str | os.PathLike,
    *,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    of: str,
    name_of: Callable[[int], str] = str,
) -> list[Path]:
    """Writes confusion_matrix.png (of few classes), recall_by_class.png and worst_mistakes.png.

    Args:
        folder: is made if need be.
        class_names: by class.
        mean: per channel, what the images were normalised with; so is `std`.
        of: which weights were evaluated, as "step 1950, epoch 12, averaged weights".
        name_of: the file or number of an image by its index.

    Raises:
        UserError: a file cannot be written.
    """
    names = ("confusion_matrix", "recall_by_class", "worst_mistakes")
    matrix, recall, mistakes = paths = [Path(folder) / f"{name}.png" for name in names]
    if evaluation.totals.confusion is None:
        paths.remove(matrix)
        log.warning("%s is not drawn: of %d classes nothing would be seen", matrix.name, len(class_names))
    else:
        confusion_matrix(evaluation.totals.confusion, class_names, matrix, of=of)
    recall_by_class(evaluation.totals, class_names, recall, of=of)
    worst_mistakes(evaluation.mistakes, class_names, mean, std, mistakes, of=of, name_of=name_of)
    return paths


def confusion_matrix(
    confusion: np.ndarray, class_names: Sequence[str], path: str | os.PathLike, *, of: str
) -> None:
    """Draws a (K, K) matrix of counts, rows true and columns predicted.

    Colour is the share of the row, so that rare classes show as well as frequent ones. Up to 20 classes the
    counts are written in the cells; above 40 only some of the classes are named along the axes.

    Args:
        of: whose it is, a line below the title.

    Raises:
        UserError: the file cannot be written.
        ValueError: the matrix is not square, or the names are not K.
    """
    names, fonts = drawable([shortened(name) for name in class_names])
    figure = confusion_figure(confusion, names, fonts=fonts)
    left = figure.axes[0].get_position().x0
    headline(figure, "Confusion matrix", _accuracy(np.asarray(confusion)), of, left=left)
    save(figure, path)


def confusion_figure(
    confusion: np.ndarray,
    names: Sequence[str],
    *,
    fonts: Sequence[str],
    colours: str | Colormap = "Blues",
    headroom: float = 1.15,
) -> Figure:
    """`confusion_matrix` without its headline. Raises ValueError likewise.

    Args:
        confusion: (K, K) counts.
        names: of the K classes, short.
        fonts: their families.
        colours: of the shares, from 0 to 1.
        headroom: inches for a headline.
    """
    confusion = np.asarray(confusion)
    size = len(names)
    if confusion.shape != (size, size):
        raise ValueError(f"a confusion matrix of shape {confusion.shape} does not fit {size} class names")
    images = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100 * confusion, images, out=np.full((size, size), np.nan), where=images > 0)

    label_size = 9.0 if size <= 20 else 7.0
    longest = max(map(letters, names))
    margin = 0.75 + 0.0085 * label_size * longest  # inches: room for the names, axis title outside
    side = min(max(0.55 * size, 3.6), 9.0)
    width, height = margin + side + 1.3, margin + side + headroom
    figure = new_figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    bar = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.16 / width, side / height))

    # The square root of the share: confusions of a few per cent, the ones looked for, would vanish else.
    scale = PowerNorm(0.5, vmin=0, vmax=100)
    axes.set_facecolor(FAINT)
    cells = axes.imshow(shares, cmap=colours, norm=scale, interpolation="nearest", aspect="auto")
    colorbar = figure.colorbar(cells, cax=bar, ticks=FixedLocator([0, 1, 5, 10, 25, 50, 75, 100]))
    colorbar.ax.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    colorbar.set_label("share of the true class", color=QUIET, fontsize=9)
    colorbar.ax.tick_params(colors=QUIET, labelsize=8, length=2)
    colorbar.outline.set_visible(False)

    step = 1 if size <= 40 else 5 * math.ceil(size / 200)
    ticks = range(0, size, step)
    shown = {"labels": [names[tick] for tick in ticks], "parse_math": False, "fontfamily": fonts}
    axes.set_xticks(ticks, rotation=90, **shown)
    axes.set_yticks(ticks, **shown)
    axes.tick_params(colors=INK, labelsize=label_size, length=0 if step == 1 else 3)
    for side_name in axes.spines:
        axes.spines[side_name].set_visible(False)
    axes.set_xlabel("predicted class", color=QUIET, fontsize=10, labelpad=8)
    axes.set_ylabel("true class", color=QUIET, fontsize=10, labelpad=8)
    if size <= 20:
        _write_counts(axes, confusion, shares)
    return figure


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
            color="white" if shares[row, column] > 30 else INK,
        )


def _accuracy(confusion: np.ndarray) -> str:
    total = int(confusion.sum())
    if not total:
        return "no evaluation yet"
    right = int(np.trace(confusion))
    note = "" if confusion.any(axis=1).all() else "; grey rows: no images"
    share = f"{100 * right / total:.2f} %{_uncertainty(right, total)}"
    return f"accuracy {share}: {right:,} of {total:,} images{note}"


def _uncertainty(right: int, total: int) -> str:
    if total >= SMALL:
        return ""
    low, high = interval(100 * right / total, total)
    return f" ({low:.0f} to {high:.0f} %)"


def recall_by_class(totals: Totals, class_names: Sequence[str], path: str | os.PathLike, *, of: str) -> None:
    """Draws the share of each class that was predicted right, the lowest first; of many the lowest alone.

    Raises:
        UserError: the file cannot be written.
    """
    known = np.flatnonzero(totals.images)
    chosen = known[np.argsort(totals.recall[known], kind="stable")][:_BARS]
    height = 1.45 + 0.22 * max(len(chosen), 3)
    figure = new_figure(7.0, height)
    axes = figure.add_axes((0.27, 0.4 / height, 0.55, 1 - 1.45 / height))
    shares, places = totals.recall[chosen], np.arange(len(chosen))
    axes.barh(places, shares, height=0.7, color=BLUE, zorder=3)
    for place, label, share in zip(places, chosen, shares):
        text = f"{share:.1f} %  ({totals.right[label]:,} of {totals.images[label]:,})"
        axes.text(101, place, text, va="center", fontsize=7.5, color=QUIET)
    names, fonts = drawable(
        [shortened(class_names[label]) for label in chosen], lambda place: str(chosen[place])
    )
    axes.set_yticks(places, names, parse_math=False, fontfamily=fonts)
    axes.set_xlim(0, 100)
    axes.set_ylim(max(len(chosen), 3) - 0.4, -0.6)
    style(axes)
    axes.grid(axis="x", color=FAINT, lw=0.8, zorder=0)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    without = len(class_names) - len(known)
    subtitle = (
        f"the {len(chosen)} lowest of {len(class_names):,} classes" if len(known) > _BARS else "lowest first"
    )
    subtitle += f"; {without} without images" if without else ""
    headline(figure, "Recall by class", subtitle, of, left=0.04)
    save(figure, path)


def worst_mistakes(
    mistakes: Sequence["Example"],
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    path: str | os.PathLike,
    *,
    of: str,
    name_of: Callable[[int], str] = str,
) -> None:
    """Draws a sheet of misclassified images, each with its file, its class and what was predicted instead.

    Args:
        mistakes: with images (C, H, W), C 1 or 3, normalised as (pixel - mean) / std, or (H, W, 3) uint8.
        class_names: by class.
        mean: per channel, on the scale 0..255.
        std: per channel, on the scale 0..255.
        path: a PNG file.
        of: whose they are, a line below the title.
        name_of: the file or number of an image by its index.

    Raises:
        UserError: the file cannot be written.
    """
    columns = min(max(math.ceil(math.sqrt(len(mistakes))), 3), 6)
    rows = max(math.ceil(len(mistakes) / columns), 1)
    # Inches, and whole pixels: an image of 28, 32, 56 or 224 pixels then grows by a whole number.
    cell, gap, caption, top, edge = _CELL / DPI, 0.4, 0.66, 1.05, 0.3
    width = 2 * edge + columns * cell + (columns - 1) * gap
    height = top + rows * (cell + caption) + edge / 2
    figure = new_figure(width, height)
    names, fonts = drawable([shortened(name) for name in class_names])
    files, file_fonts = drawable(
        [end_of_path(name_of(mistake.index)) for mistake in mistakes],
        lambda place: f"image {mistakes[place].index}",
    )
    for place, mistake in enumerate(mistakes):
        row, column = divmod(place, columns)
        left = edge + column * (cell + gap)
        bottom = height - top - row * (cell + caption) - cell
        axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
        pixels = pixels_of(mistake.image, mean, std)
        # Few pixels are shown as they are; many are averaged, since skipping some would draw false patterns.
        sharp = max(pixels.shape[:2]) <= _CELL
        axes.imshow(pixels, interpolation="nearest" if sharp else "hanning")
        axes.set_axis_off()
        predicted = shortened(names[mistake.prediction], 16)
        lines = (
            (f"truth: {names[mistake.label]}", INK, fonts),
            (f"predicted: {predicted} {100 * mistake.probability:.1f} %", RED, fonts),
            (files[place], QUIET, file_fonts),
        )
        for line, (text, color, family) in enumerate(lines):
            figure.text(
                left / width,
                (bottom - 0.06 - 0.16 * line) / height,
                text,
                va="top",
                fontsize=7.5,
                color=color,
                parse_math=False,
                fontfamily=family,
            )
    if not mistakes:
        figure.text(0.5, 0.45, "no mistakes to show", ha="center", fontsize=12, color=QUIET)
    subtitle = "the wrong predictions with the highest loss, highest first" if mistakes else "no mistakes"
    headline(figure, "Worst mistakes", subtitle, of, left=edge / width)
    save(figure, path)


def end_of_path(name: str, most: int = 30) -> str:
    """The end of a path, which tells images apart, in letters that every font draws."""
    name = printable(name)
    return name if len(name) <= most else "…" + name[1 - most :]


def pixels_of(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(C, H, W) normalised -> (H, W, 3) uint8; one channel is shown as grey. Pixels stay as they are."""
    if image.dtype == np.uint8:
        return image
    channels = np.moveaxis(np.asarray(image, dtype=np.float64), 0, -1)
    pixels = np.clip(np.rint(channels * np.asarray(std) + np.asarray(mean)), 0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
