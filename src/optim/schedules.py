"""Learning-rate schedules: plain functions from a number of steps to one rate per step.

Every function takes the length of the run first and returns a float64 array of shape (steps,). Entry i is
the rate of the update that has i updates before it, so resuming after n updates goes on at entry n. Units
are optimizer steps throughout; a caller that thinks in epochs multiplies by its steps per epoch.

Where the two ends land:

- `piecewise_linear` and `one_cycle` count steps from 1, as cifar10-fast does: entry i is the line's value at
  i + 1. The first step is a small move along the line, and the last one sits exactly on its end.
- All others count from 0. A warm-up of w steps gives `lr_start` to step 0 and `lr` to step w, the first one
  after it. A decay over n steps gives `lr` to its first step and stops one step short of `lr_end`, which
  step n would have had, so that no step is spent at a final rate of 0.

A bad argument raises ValueError with one line that names it.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral

import numpy as np


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
            every cycle; "exp_range" scales the height by `gamma` to the power of the step.
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


def step(steps: int, *, lr: float, every: int, gamma: float) -> np.ndarray:
    """Multiply by `gamma` every `every` steps: `lr * gamma ** (i // every)`.

    The first `every` steps get `lr`; the last step gets `lr * gamma ** ((steps - 1) // every)`.
    """
    _check_count("steps", steps, at_least=1)
    _check_count("every", every, at_least=1)
    _check_rates(lr=lr, gamma=gamma)
    return lr * np.float64(gamma) ** (np.arange(steps) // every)


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


def halving(steps: int, *, lr: float, every: int) -> np.ndarray:
    """Halve the rate every `every` steps: `step` with a gamma of 0.5."""
    return step(steps, lr=lr, every=every, gamma=0.5)


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


def linear(
    steps: int, *, lr: float, lr_end: float = 0.0, warmup_steps: int = 0, lr_start: float = 0.0
) -> np.ndarray:
    """Linear warm-up, then a straight line towards `lr_end`: `polynomial` with a power of 1."""
    return polynomial(steps, lr=lr, lr_end=lr_end, power=1.0, warmup_steps=warmup_steps, lr_start=lr_start)


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
        schedule: from a number of steps, 1 or more, to its rates.
    """
    _check_count("steps", steps, at_least=1)
    _check_count("cooldown_steps", cooldown_steps, at_least=0)
    if cooldown_steps > steps:
        raise ValueError(f"cooldown_steps must be between 0 and steps ({steps}), got {cooldown_steps}")
    _check_rates(lr_end=lr_end)
    left = steps - cooldown_steps
    return np.concatenate([schedule(max(1, left))[:left], np.full(cooldown_steps, lr_end)])


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
