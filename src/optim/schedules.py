# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: plain functions from a number of steps to one rate per step, and their table.

Every function takes the length of the run first and returns a float64 array of shape (steps,). Entry i is
the rate of the update that has i updates before it, so resuming after n updates goes on at entry n. A step
is an update here: `scheduled_rates` turns the keys of a config, which count epochs, into updates.

A new schedule is a function and a row of SCHEDULES; where it has an argument that no other has, also an entry
of `_FROM_KEYS`.

Where the two ends land:

- `piecewise_linear` and `one_cycle` count steps from 1, as cifar10-fast does: entry i is the line's value at
  i + 1. The first step is a small move along the line, and the last one sits exactly on its end. `thor`
  (thor/schedules.py) counts like them.
- All others count from 0. A warm-up of w steps gives `lr_start` to step 0 and `lr` to step w, the first one
  after it. A decay over n steps gives `lr` to its first step and stops one step short of `lr_end`, which
  step n would have had, so that no step is spent at a final rate of 0.

A bad argument raises ValueError with one line that names it.
"""

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np

from ..common.errors import UserError
from .thor.schedules import thor

log = logging.getLogger("quartet")

# What warm-up and cool-down take together of a run that is shorter than they are.
_SHARE = 0.25


def constant(steps: int, *, lr: float) -> np.ndarray:
    """The rate `lr` at every step, the first and the last included."""
    _check_count("steps", steps, at_least=1)
    _check_rates(lr=lr)
    return np.full(steps, lr, dtype=np.float64)


def piecewise_linear(steps: int, *, knots: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Straight lines through the points (knot, value), after `PiecewiseLinear` in cifar10-fast.

    Entry i is the interpolation at i + 1. The first step therefore gets the value at 1, and the last one the
    value at `steps`. Before the first knot and after the last the rate is held.

    Args:
        knots: strictly increasing positions in steps; they need not be whole, nor end with the run.
        values: the rate at each knot.
    """
    _check_count("steps", steps, at_least=1)
    knots = np.asarray(knots, dtype=np.float64)
    values = np.asarray(values, dtype=np.float64)
    if knots.ndim != 1 or knots.shape != values.shape or not knots.size:
        raise ValueError(
            f"knots and values must have the same length >= 1, got {knots.size} and {values.size}"
        )
    if not np.all(np.isfinite(knots)) or np.any(np.diff(knots) <= 0):
        raise ValueError(f"knots must be finite and strictly increasing, got {knots.tolist()}")
    for value in values:
        _check_rates(values=value)
    return np.interp(np.arange(1, steps + 1), knots, values)


def one_cycle(
    steps: int, *, lr: float, warmup_steps: float, lr_start: float = 0.0, lr_end: float = 0.0
) -> np.ndarray:
    """Up from `lr_start` to `lr`, then down to `lr_end`, both in straight lines (cifar10-fast, dawn.py).

    The first step gets 1 / warmup_steps of the way up, step number `warmup_steps` (counted from 1) gets
    exactly `lr`, and the last step gets exactly `lr_end`. Without warm-up the first step is already one step
    down from `lr`; with a warm-up as long as the run the last step gets `lr`.
    """
    _check_count("steps", steps, at_least=1)
    _check_warmup(steps, warmup_steps)
    _check_rates(lr=lr, lr_start=lr_start, lr_end=lr_end)
    points = {0: lr_start, warmup_steps: lr, steps: lr_end}
    if warmup_steps == steps:
        points[steps] = lr
    return piecewise_linear(steps, knots=list(points), values=list(points.values()))


def cyclic(
    steps: int,
    *,
    lr_min: float,
    lr_max: float,
    half_cycle: float,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> np.ndarray:
    """Cyclical rates (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017).

    The first step gets `lr_min`, step `half_cycle` gets the first peak, and the last step whatever point of
    the triangle it falls on.

    Args:
        half_cycle: steps from the bottom to the top, Smith's "stepsize".
        mode: "triangular" keeps the peaks at `lr_max`; "triangular2" halves the height above `lr_min` with
            every cycle; "exp_range" scales the height by `gamma` to the power of the step, as the author's
            code and PyTorch do (in the paper's words `lr_min` falls as well).
        gamma: used by "exp_range" alone.
    """
    _check_count("steps", steps, at_least=1)
    _check_rates(lr_min=lr_min, lr_max=lr_max, gamma=gamma)
    if lr_max < lr_min:
        raise ValueError(f"lr_max must not be below lr_min, got {lr_max} < {lr_min}")
    if not 0 < half_cycle < math.inf:
        raise ValueError(f"half_cycle must be positive and finite, got {half_cycle}")
    index = np.arange(steps, dtype=np.float64)
    cycle = np.floor(1 + index / (2 * half_cycle))
    height = np.maximum(0.0, 1 - np.abs(index / half_cycle - 2 * cycle + 1))
    if mode == "triangular2":
        height = height / 2 ** (cycle - 1)
    elif mode == "exp_range":
        height = height * gamma**index
    elif mode != "triangular":
        raise ValueError(f"mode must be 'triangular', 'triangular2' or 'exp_range', got {mode!r}")
    return lr_min + (lr_max - lr_min) * height


def multi_step(
    steps: int,
    *,
    lr: float,
    milestones: Sequence[int],
    gamma: float,
    warmup_steps: int = 0,
    lr_start: float = 0.0,
) -> np.ndarray:
    """Linear warm-up, then `lr * gamma ** (number of milestones <= i)` at step i.

    Step m (counted from 0), the one that has m updates before it, is the first to feel milestone m. The first
    step gets `lr_start`, or `lr` without warm-up and unless a milestone is 0. Milestones within the warm-up
    take effect at its end, those beyond the run have none.

    Args:
        milestones: strictly increasing whole steps, counted from the start of the run; may be empty.
    """
    warmup = _linear_warmup(steps, lr=lr, warmup_steps=warmup_steps, lr_start=lr_start)
    _check_rates(gamma=gamma)
    for milestone in milestones:
        _check_count("milestones", milestone, at_least=0)
    if any(later <= earlier for earlier, later in pairwise(milestones)):
        raise ValueError(f"milestones must be strictly increasing, got {list(milestones)}")
    later_steps = np.arange(warmup_steps, steps)
    passed = np.searchsorted(np.asarray(milestones, dtype=np.int64), later_steps, side="right")
    return np.concatenate([warmup, lr * np.float64(gamma) ** passed])


def exponential(
    steps: int, *, lr: float, every: int, gamma: float, warmup_steps: int = 0, lr_start: float = 0.0
) -> np.ndarray:
    """Linear warm-up, then a staircase of factor `gamma` with stairs of `every` steps.

    Step i < warmup_steps gets `lr_start + (lr - lr_start) * i / warmup_steps`, any later one
    `lr * gamma ** ((i - warmup_steps) // every)`. The first step gets `lr_start`, or `lr` without warm-up;
    the last step gets its stair's rate.
    """
    _check_count("every", every, at_least=1)
    _check_rates(gamma=gamma)
    warmup = _linear_warmup(steps, lr=lr, warmup_steps=warmup_steps, lr_start=lr_start)
    stairs = np.arange(steps - warmup_steps) // every
    return np.concatenate([warmup, lr * np.float64(gamma) ** stairs])


def polynomial(
    steps: int,
    *,
    lr: float,
    lr_end: float = 0.0,
    power: float,
    warmup_steps: int = 0,
    lr_start: float = 0.0,
) -> np.ndarray:
    """Linear warm-up, then `lr_end + (lr - lr_end) * (1 - t) ** power`.

    t is the part of the decay that is done before the step, (i - warmup_steps) / (steps - warmup_steps). The
    first step gets `lr_start`, or `lr` without warm-up; step `warmup_steps` gets `lr`; the last step is one
    short of `lr_end`.
    """
    _check_rates(lr_end=lr_end, power=power)
    warmup = _linear_warmup(steps, lr=lr, warmup_steps=warmup_steps, lr_start=lr_start)
    left = 1 - _decay_progress(steps - warmup_steps)
    return np.concatenate([warmup, lr_end + (lr - lr_end) * left**power])


def cosine(
    steps: int, *, lr: float, lr_end: float = 0.0, warmup_steps: int = 0, lr_start: float = 0.0
) -> np.ndarray:
    """Linear warm-up, then half a cosine (Loshchilov and Hutter, SGDR, ICLR 2017, without restarts).

    The decay is `lr_end + (lr - lr_end) * (1 + cos(pi * t)) / 2` with t as in `polynomial`, and so are the
    first and the last step.
    """
    _check_rates(lr_end=lr_end)
    warmup = _linear_warmup(steps, lr=lr, warmup_steps=warmup_steps, lr_start=lr_start)
    left = (1 + np.cos(np.pi * _decay_progress(steps - warmup_steps))) / 2
    return np.concatenate([warmup, lr_end + (lr - lr_end) * left])


def cool_down(
    steps: int, schedule: Callable[[int], np.ndarray], *, cooldown_steps: int, lr_end: float
) -> np.ndarray:
    """`schedule` over the steps before the last `cooldown_steps`, which have `lr_end`.

    The decay ends where the cool-down begins: step `steps - cooldown_steps`, the first one at `lr_end`, is
    where the shorter schedule would have reached it.

    Args:
        schedule: from a number of steps, 1 or more, to their rates.
    """
    _check_count("steps", steps, at_least=1)
    _check_count("cooldown_steps", cooldown_steps, at_least=0)
    if cooldown_steps > steps:
        raise ValueError(f"cooldown_steps must be between 0 and steps ({steps}), got {cooldown_steps}")
    _check_rates(lr_end=lr_end)
    left = steps - cooldown_steps
    return np.concatenate([schedule(max(1, left))[:left], np.full(cooldown_steps, lr_end)])


@dataclass(frozen=True)
class Schedule:
    """One choice of `lr_schedule`.

    Attributes:
        function: from a number of steps and keyword arguments to the rates.
        fixed: arguments that the name sets; keys set the others, as `_FROM_KEYS` says.
        cools_down: whether the run may end with `cooldown_epochs` at `lr_end`.
    """

    function: Callable[..., np.ndarray]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    cools_down: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that keys set."""
        _, *names = inspect.signature(self.function).parameters
        return tuple(name for name in names if name not in self.fixed)

    @property
    def warms_up(self) -> bool:
        """Whether `warmup_epochs` is one of its keys."""
        return "warmup_steps" in self.arguments


SCHEDULES = {
    "constant": Schedule(constant),
    "one_cycle": Schedule(one_cycle),
    "piecewise": Schedule(piecewise_linear),
    "triangular": Schedule(cyclic, {"mode": "triangular", "gamma": 1.0}),
    "triangular2": Schedule(cyclic, {"mode": "triangular2", "gamma": 1.0}),
    "exp_range": Schedule(cyclic, {"mode": "exp_range"}),
    "step": Schedule(exponential, {"warmup_steps": 0, "lr_start": 0.0}),
    "multi_step": Schedule(multi_step, cools_down=True),
    "halving": Schedule(exponential, {"gamma": 0.5, "warmup_steps": 0, "lr_start": 0.0}),
    "exponential": Schedule(exponential, cools_down=True),
    "polynomial": Schedule(polynomial, cools_down=True),
    "linear": Schedule(polynomial, {"power": 1.0}, cools_down=True),
    "cosine": Schedule(cosine, cools_down=True),
    "thor": Schedule(thor),
}

# Argument -> its value by the keys `c`; `updates` turns epochs into updates. The warm-up's is in `_phases`.
_FROM_KEYS: dict[str, Callable[[Any, Callable[[float], float]], Any]] = {
    "lr": lambda c, updates: c.lr,
    "lr_start": lambda c, updates: c.lr_start,
    "lr_end": lambda c, updates: c.lr_end,
    "lr_min": lambda c, updates: c.lr_start,
    "lr_max": lambda c, updates: c.lr,
    "every": lambda c, updates: max(1, round(updates(c.lr_every))),
    "half_cycle": lambda c, updates: max(1, round(updates(c.lr_every))),
    "gamma": lambda c, updates: c.lr_gamma,
    "power": lambda c, updates: c.lr_power,
    "zero_step": lambda c, updates: updates(c.lr_zero_epoch),
    "milestones": lambda c, updates: [round(updates(epoch)) for epoch in c.lr_milestones],
    "knots": lambda c, updates: [updates(epoch) for epoch in c.lr_epochs],
    "values": lambda c, updates: c.lr_values,
}


# Images an update / lr_base_batch -> the factor on all rates. Goyal et al. (arXiv 1706.02677) scale linearly,
# Krizhevsky (arXiv 1404.5997) by the square root, which keeps the variance of an update. airbench divides by
# 1 + 1 / (1 - momentum) as well, so that a rate means a distance in weights, whatever the momentum; a step of
# constant gradients is 1 / (1 - momentum) times the gradient in truth, and the 1 is airbench's.
LR_SCALE_RULES: dict[str, Callable[[float, float], float]] = {
    "none": lambda ratio, momentum: 1.0,
    "linear": lambda ratio, momentum: ratio,
    "sqrt": lambda ratio, momentum: math.sqrt(ratio),
    "decoupled": lambda ratio, momentum: ratio / (1 + 1 / (1 - momentum)),
}


def rate_factor(c: Any, *, images_per_update: int) -> float:
    """What the rates of the keys `c` are multiplied by, for their `lr_scale_rule`."""
    ratio = images_per_update / c.lr_base_batch
    if c.lr_scale_rule == "none" and ratio != 1:
        log.warning(
            "an update sees %d images, not lr_base_batch %d, and the rates stay as they are "
            "(lr_scale_rule none); linear or sqrt would multiply them by %.3g or %.3g",
            images_per_update, c.lr_base_batch, ratio, math.sqrt(ratio),
        )  # fmt: skip
    return LR_SCALE_RULES[c.lr_scale_rule](ratio, c.momentum)


def scheduled_rates(c: Any, *, updates: int, updates_per_epoch: float) -> np.ndarray:
    """The learning rate of each update of a run, float64, shape (updates,).

    Warm-up and cool-down that do not fit into the run are scaled to a quarter of it; the log says so.

    Args:
        c: a config with the keys of the schedule.
        updates: of the whole run.
        updates_per_epoch: need not be whole.

    Raises:
        UserError: the keys make no schedule.
    """
    schedule = SCHEDULES[c.lr_schedule]
    warmup, cooldown = _phases(c, schedule, updates=updates, updates_per_epoch=updates_per_epoch)
    values = {
        name: warmup if name == "warmup_steps" else _FROM_KEYS[name](c, lambda e: e * updates_per_epoch)
        for name in schedule.arguments
    }
    try:
        return cool_down(
            updates,
            lambda steps: schedule.function(steps, **values, **schedule.fixed),
            cooldown_steps=cooldown,
            lr_end=c.lr_end,
        )
    except ValueError as error:
        raise UserError(f"lr_schedule {c.lr_schedule} over {updates} updates: {error}") from error


def _phases(c: Any, schedule: Schedule, *, updates: int, updates_per_epoch: float) -> tuple[int, int]:
    """The updates of warm-up and cool-down, together no more than the run's."""
    if c.warmup_epochs and not schedule.warms_up:
        log.info(
            "lr_schedule %s has no warm-up: warmup_epochs %g has no effect", c.lr_schedule, c.warmup_epochs
        )
    warmup = c.warmup_epochs * updates_per_epoch if schedule.warms_up else 0.0
    cooldown = c.cooldown_epochs * updates_per_epoch if schedule.cools_down else 0.0
    if warmup + cooldown > updates + 1.5:  # 1.5: rounding, where updates and epochs do not meet
        factor = _SHARE * updates / (warmup + cooldown)
        given = f"warmup_epochs {c.warmup_epochs:g}"
        given += f" and cooldown_epochs {c.cooldown_epochs:g}" if cooldown else ""
        log.warning(
            "%s: %d updates do not fit into a run of %d; scaled to a quarter of it (%d)",
            given, round(warmup + cooldown), updates, round(_SHARE * updates),
        )  # fmt: skip
        warmup, cooldown = factor * warmup, factor * cooldown
    warmup = min(round(warmup), updates)
    return warmup, min(round(cooldown), updates - warmup)


def _linear_warmup(steps: int, *, lr: float, warmup_steps: int, lr_start: float) -> np.ndarray:
    """The warm-up's own rates, shape (warmup_steps,); also checks what every warmed-up schedule shares."""
    _check_count("steps", steps, at_least=1)
    _check_count("warmup_steps", warmup_steps, at_least=0)
    _check_warmup(steps, warmup_steps)
    _check_rates(lr=lr, lr_start=lr_start)
    return np.linspace(lr_start, lr, warmup_steps, endpoint=False)


def _decay_progress(length: int) -> np.ndarray:
    """The part of a decay done before each of its steps: 0, 1 / length, ... (length - 1) / length."""
    return np.linspace(0.0, 1.0, length, endpoint=False)


def _check_count(name: str, value: int, *, at_least: int) -> None:
    if not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value}")


def _check_warmup(steps: int, warmup_steps: float) -> None:
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warmup_steps must be between 0 and steps ({steps}), got {warmup_steps}")


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative, got {value}")
