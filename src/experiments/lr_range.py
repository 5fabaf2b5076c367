# SPDX-License-Identifier: Apache-2.0
"""The range test of the learning rate, which rises over a short run: the loss shows where it helps and harms.

After L. Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section 3.3, where
the accuracy is looked at by eye; the rule is ours.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ..common.errors import UserError
from ..common.files import write_json
from ..evaluation.drawing import BLUE, INK, PALE_BLUE, RED, headline, new_figure, save, style

LEAST = 20  # updates with a finite loss that a suggestion needs
_POINTS = 101  # of a rise in equal factors, with straight lines between
_MEMORY = 0.05  # the loss is averaged over about this share of the updates
_FALLS = 0.1  # share of its whole fall after which the loss counts as falling, or as rising again
_MARGIN = 2.0  # from the lowest loss down to the suggested maximum

RULE = (
    "base: where the smoothed loss has made the first 10 % of its fall; max: half the rate at its lowest "
    "point, or the last rate where it does not rise again by 10 % of that fall"
)


def keys_of_range(
    config: Any, *, lr_min: float, lr_max: float, exponential: bool, given: Sequence[str]
) -> dict[str, Any]:
    """The keys that make a range test of a training: its rate, and a record of each update.

    Args:
        config: of the training, with the length of the test.
        lr_min, lr_max: first and last value of `lr`.
        exponential: by equal factors, not by equal steps.
        given: names of keys that the user sets.

    Raises:
        UserError: the rates do not rise from above 0, or the user sets one of these keys but eval_every.
    """
    if not 0 < lr_min < lr_max < np.inf:
        raise UserError(
            f"lr_max: {lr_max:g} given with lr_min {lr_min:g}, allowed: rates above 0, the second one higher"
        )
    if config.train_steps:
        raise UserError(f"train_steps: {config.train_steps} given, allowed: --epochs, also a part of one")
    rise = np.geomspace(lr_min, lr_max, _POINTS) if exponential else np.array([lr_min, lr_max])
    keys = {
        "lr_schedule": "piecewise",
        "lr_epochs": np.linspace(0, config.epochs, len(rise)).tolist(),
        "lr_values": rise.tolist(),
        "warmup_epochs": 0.0,
        "cooldown_epochs": 0.0,
        "log_every": 1,
        "eval_every": config.epochs,
        "save_every": config.epochs,
        "tta": "none",
        "tta_share": 1.0,
        "ema_decay": 0.0,  # an average lags behind what the rate does
        "ema_every": 1,
        "lookahead": False,
        "bn_reestimation_batches": 0,
        "max_nonfinite_steps": 1,
    }
    if "eval_every" in given:
        del keys["eval_every"]
    for name in given:
        if name in keys:
            raise UserError(f"{name}: given, but the range test sets it; leave it out")
    return keys


def check_rates(recipe: Any) -> None:
    """Raises UserError where a recipe with `keys_of_range` has other rates than those."""
    config = recipe.config
    rates = recipe.rates(
        updates=_POINTS, updates_per_epoch=_POINTS / config.epochs, images_per_update=config.lr_base_batch
    )
    if (np.diff(rates) <= 0).any():
        raise UserError("lr_schedule: the recipe sets its own rates, which do not rise; set hyper_rule false")


def smoothed(values: Sequence[float]) -> np.ndarray:
    """The moving average m <- b m + (1 - b) value over about a twentieth of the values, bias-corrected.

    After n values m is divided by 1 - b^n, as in Adam, so that the start is not drawn towards 0.
    """
    decay = 1 - 1 / max(1.0, _MEMORY * len(values))
    mean, averages = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = decay * mean + (1 - decay) * value
        averages.append(mean / (1 - decay**count))
    return np.array(averages)


@dataclass(frozen=True)
class Suggestion:
    """What a test suggests.

    Attributes:
        base_lr, max_lr: by RULE; of a cyclical rate the two ends, of a one-cycle rate max_lr the peak.
        lowest_at: rate where the smoothed loss is lowest.
        turned: whether it rises again behind that; if not, a higher rate may be as good.
    """

    base_lr: float
    max_lr: float
    lowest_at: float
    turned: bool


def suggest(rates: np.ndarray, losses: np.ndarray, *, diverged: bool) -> Suggestion:
    """By RULE, from the rate and the loss of each update; `diverged`: the loss was not finite after the last.

    Raises:
        UserError: fewer than LEAST updates.
    """
    if len(losses) < LEAST:
        raise UserError(
            f"{len(losses)} updates have a finite loss, {LEAST} are needed; lower lr_max, or raise epochs"
        )
    loss = smoothed(losses)
    lowest = int(np.argmin(loss))
    start = int(np.argmax(loss[: lowest + 1]))
    fall = loss[start] - loss[lowest]
    began = start + int(np.argmax(loss[start : lowest + 1] <= loss[start] - _FALLS * fall))
    turned = diverged or bool(loss[lowest:].max() > loss[lowest] + _FALLS * fall)
    high = float(rates[lowest] / _MARGIN if turned else rates[-1])
    return Suggestion(min(float(rates[began]), high), high, float(rates[lowest]), turned)


def report(
    records: Sequence[dict[str, Any]],
    run_dir: Path,
    *,
    factor: float,
    diverged: bool,
    exponential: bool,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Writes lr_range.png and lr_range.json into the run's folder, and returns what the latter holds.

    Args:
        records: of its metrics.jsonl.
        factor: what `lr_scale_rule` multiplies the key's rates by; what is suggested is a value of the key.
        diverged: the run ended since its loss was not finite.
        facts: what the JSON object begins with.

    Raises:
        UserError: as `suggest`, or a file cannot be written.
    """
    losses = np.array([(record["lr"] / factor, record["loss"]) for record in records if "loss" in record])
    suggestion = suggest(*losses.reshape(-1, 2).T, diverged=diverged)
    top1, rate = [], 0.0
    for record in records:
        rate = record.get("lr", rate)
        if "eval_top1" in record:
            top1.append((rate / factor, record["eval_top1"]))
    picture = run_dir / "lr_range.png"
    draw_range(losses, np.array(top1), suggestion, picture, exponential=exponential)
    facts = {
        **facts, "exponential": exponential, "updates": len(losses), "diverged": diverged,
        **asdict(suggestion), "rule": RULE, "picture": str(picture),
    }  # fmt: skip
    write_json(run_dir / "lr_range.json", facts)
    return facts


def draw_range(
    losses: np.ndarray,
    top1: np.ndarray,
    suggestion: Suggestion,
    path: str | os.PathLike,
    *,
    exponential: bool,
) -> None:
    """Draws the loss by rate, each and smoothed, and what is suggested; below it top-1, if there are several.

    Args:
        losses: (updates, 2), rate and loss.
        top1: (evaluations, 2), rate and per cent.
        path: of the PNG file. Raises UserError where it cannot be written.
    """
    panels = 2 if len(top1) > 1 else 1
    height = 6.6 if panels > 1 else 4.6
    figure = new_figure(8.0, height)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[2, 1][:panels])[:, 0]
    figure.subplots_adjust(left=0.1, right=0.96, top=1 - 1.0 / height, bottom=0.6 / height, hspace=0.12)
    smooth = smoothed(losses[:, 1])
    axes[0].plot(*losses.T, color=PALE_BLUE, lw=0.8, zorder=2)
    axes[0].plot(losses[:, 0], smooth, color=BLUE, lw=1.6, zorder=3)
    axes[0].set_ylabel("training loss (nats)")
    span = smooth.max() - smooth.min()
    axes[0].set_ylim(smooth.min() - 0.25 * span, min(smooth[0], smooth.max()) + 0.6 * span)
    if panels > 1:
        axes[1].plot(*top1.T, color=RED, lw=1.6, marker="o", ms=3.5, zorder=3)
        axes[1].set_ylabel("top-1 (%)")
    for one in axes:
        style(one)
        _mark(one, suggestion)
        if exponential:
            one.set_xscale("log")
        one.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[-1].set_xlabel("learning rate")
    found = f"base {suggestion.base_lr:.3g}, max {suggestion.max_lr:.3g} (dashed)"
    lowest = f"lowest smoothed loss at {suggestion.lowest_at:.3g}"
    after = "" if suggestion.turned else ", and no rise after it: a higher lr_max would tell more"
    headline(figure, "Range test of the learning rate", found, f"{lowest}{after}", left=0.1)
    save(figure, path)


def _mark(axes: Axes, suggestion: Suggestion) -> None:
    for rate in (suggestion.base_lr, suggestion.max_lr):
        axes.axvline(rate, color=INK, lw=1, ls="--", zorder=1)
