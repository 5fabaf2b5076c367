# SPDX-License-Identifier: Apache-2.0
"""Every schedule against a scalar per-step formula, hand-made values, and its refusals."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.optim import schedules

VECTORS = Path(__file__).parents[1] / "vectors" / "resnet9.npz"

fuzz = settings(deadline=None, max_examples=60)
counts = st.integers(1, 60)
rates = st.floats(0, 10)
gammas = st.floats(0, 1.2)


@st.composite
def warmups(draw):
    """A length and a whole warm-up that fits into it."""
    steps = draw(counts)
    return steps, draw(st.integers(0, steps))


def assert_rates(actual, oracle, steps):
    assert actual.shape == (steps,)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, [oracle(i) for i in range(steps)], rtol=1e-9, atol=1e-12)


def warmed_up(i, warmup_steps, lr_start, lr, decay):
    """The house's warm-up in front of `decay`, a function of the steps since the warm-up."""
    if i < warmup_steps:
        return lr_start + (lr - lr_start) * i / warmup_steps
    return decay(i - warmup_steps)


@fuzz
@given(counts, rates)
def test_constant(steps, lr):
    assert_rates(schedules.constant(steps, lr=lr), lambda i: lr, steps)


@fuzz
@given(
    counts,
    st.lists(st.integers(-5, 80), min_size=1, max_size=5, unique=True).map(sorted),
    st.lists(rates, min_size=5, max_size=5),
)
def test_piecewise_linear(steps, knots, values):
    values = values[: len(knots)]

    def oracle(i):
        x = i + 1
        if x <= knots[0]:
            return values[0]
        for left, right, low, high in zip(knots, knots[1:], values, values[1:], strict=False):
            if left <= x <= right:
                return low + (high - low) * (x - left) / (right - left)
        return values[-1]

    assert_rates(schedules.piecewise_linear(steps, knots=knots, values=values), oracle, steps)


def test_piecewise_linear_by_hand():
    actual = schedules.piecewise_linear(7, knots=[0, 2, 4.5], values=[0.0, 1.0, 0.5])
    np.testing.assert_allclose(actual, [0.5, 1.0, 0.8, 0.6, 0.5, 0.5, 0.5], rtol=1e-12)


@fuzz
@given(warmups(), rates, rates, rates)
def test_one_cycle(lengths, lr, lr_start, lr_end):
    steps, warmup_steps = lengths

    def oracle(i):
        if i + 1 <= warmup_steps:
            return lr_start + (lr - lr_start) * (i + 1) / warmup_steps
        return lr + (lr_end - lr) * (i + 1 - warmup_steps) / (steps - warmup_steps)

    actual = schedules.one_cycle(steps, lr=lr, warmup_steps=warmup_steps, lr_start=lr_start, lr_end=lr_end)
    assert_rates(actual, oracle, steps)


def test_one_cycle_wastes_no_first_step_and_ends_at_exactly_zero():
    actual = schedules.one_cycle(24, lr=0.4, warmup_steps=5)
    assert actual[0] == pytest.approx(0.08)
    assert actual[4] == 0.4
    assert actual[-1] == 0.0


def test_one_cycle_without_decay_ends_at_the_peak():
    np.testing.assert_allclose(schedules.one_cycle(2, lr=0.4, warmup_steps=2, lr_end=9.0), [0.2, 0.4])


def test_one_cycle_without_warmup_only_falls():
    np.testing.assert_allclose(schedules.one_cycle(4, lr=0.4, warmup_steps=0), [0.3, 0.2, 0.1, 0.0])


def test_one_cycle_equals_the_reference_of_cifar10_fast():
    with np.load(VECTORS) as vectors:
        epochs, expected = vectors["one_cycle_epochs"], vectors["one_cycle_lr"]
    steps_per_epoch = 2
    np.testing.assert_array_equal(epochs, np.arange(len(epochs)) / steps_per_epoch)
    steps = len(epochs) - 1
    actual = schedules.one_cycle(steps, lr=0.4, warmup_steps=5 * steps_per_epoch)
    np.testing.assert_allclose(actual, expected[1:], rtol=0, atol=1e-7)


@fuzz
@given(
    counts,
    rates,
    rates,
    st.floats(0.5, 30),
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    st.floats(0.5, 1),
)
def test_cyclic(steps, lr_min, rise, half_cycle, mode, gamma):
    lr_max = lr_min + rise

    def oracle(i):
        cycle = math.floor(1 + i / (2 * half_cycle))
        x = abs(i / half_cycle - 2 * cycle + 1)
        scale = {"triangular": 1.0, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": gamma**i}[mode]
        return lr_min + (lr_max - lr_min) * max(0.0, 1 - x) * scale

    actual = schedules.cyclic(
        steps, lr_min=lr_min, lr_max=lr_max, half_cycle=half_cycle, mode=mode, gamma=gamma
    )
    assert_rates(actual, oracle, steps)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("triangular", [1, 2, 3, 2, 1, 2, 3, 2, 1, 2]),
        ("triangular2", [1, 2, 3, 2, 1, 1.5, 2, 1.5, 1, 1.25]),
        ("exp_range", [1, 1.5, 1.5, 1.125, 1, 1 + 1 / 32, 1 + 2 / 64, 1 + 1 / 128, 1, 1 + 1 / 512]),
    ],
)
def test_cyclic_by_hand(mode, expected):
    actual = schedules.cyclic(10, lr_min=1, lr_max=3, half_cycle=2, mode=mode, gamma=0.5)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@fuzz
@given(counts, rates, st.integers(1, 70), gammas)
def test_step_and_halving(steps, lr, every, gamma):
    def of(name):
        keys = SimpleNamespace(
            lr_schedule=name, lr=lr, lr_every=every, lr_gamma=gamma, lr_end=0.0, warmup_epochs=0
        )
        return schedules.scheduled_rates(keys, updates=steps, updates_per_epoch=1)

    assert_rates(of("step"), lambda i: lr * gamma ** (i // every), steps)
    assert_rates(of("halving"), lambda i: lr / 2 ** (i // every), steps)


@fuzz
@given(warmups(), rates, st.lists(st.integers(0, 70), max_size=5, unique=True).map(sorted), gammas, rates)
def test_multi_step(lengths, lr, milestones, gamma, lr_start):
    steps, warmup_steps = lengths
    actual = schedules.multi_step(
        steps, lr=lr, milestones=milestones, gamma=gamma, warmup_steps=warmup_steps, lr_start=lr_start
    )

    def decay(j):
        return lr * gamma ** sum(m <= j + warmup_steps for m in milestones)

    assert_rates(actual, lambda i: warmed_up(i, warmup_steps, lr_start, lr, decay), steps)
    plain = schedules.multi_step(steps, lr=lr, milestones=milestones, gamma=gamma)
    assert_rates(plain, lambda i: lr * gamma ** sum(m <= i for m in milestones), steps)


def test_multi_step_by_hand():
    actual = schedules.multi_step(6, lr=1.0, milestones=[2, 5, 99], gamma=0.1)
    np.testing.assert_allclose(actual, [1, 1, 0.1, 0.1, 0.1, 0.01], rtol=1e-12)
    actual = schedules.multi_step(8, lr=1.0, milestones=[1, 4, 6], gamma=0.1, warmup_steps=2, lr_start=0.2)
    np.testing.assert_allclose(actual, [0.2, 0.6, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-12)


@fuzz
@given(warmups(), rates, st.integers(1, 70), gammas, rates)
def test_exponential(lengths, lr, every, gamma, lr_start):
    steps, warmup_steps = lengths
    actual = schedules.exponential(
        steps, lr=lr, every=every, gamma=gamma, warmup_steps=warmup_steps, lr_start=lr_start
    )
    assert_rates(
        actual,
        lambda i: warmed_up(i, warmup_steps, lr_start, lr, lambda j: lr * gamma ** (j // every)),
        steps,
    )


def test_exponential_has_the_known_last_rate_of_200_epochs_of_97_steps():
    actual = schedules.exponential(200 * 97, lr=0.02, every=242, gamma=0.98, warmup_steps=582)
    assert actual[0] == 0.0
    assert actual[291] == pytest.approx(0.01)
    assert actual[582] == actual[582 + 241] == 0.02
    assert actual[582 + 242] == pytest.approx(0.0196)
    assert actual[-1] == pytest.approx(0.00422, abs=5e-6)
    expected, rate = [], 0.02
    for i in range(200 * 97):
        if i > 582 and (i - 582) % 242 == 0:
            rate *= 0.98
        expected.append(0.02 * i / 582 if i < 582 else rate)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@fuzz
@given(warmups(), rates, rates, st.floats(0, 4), rates)
def test_polynomial(lengths, lr, lr_end, power, lr_start):
    steps, warmup_steps = lengths
    span = steps - warmup_steps
    actual = schedules.polynomial(
        steps, lr=lr, lr_end=lr_end, power=power, warmup_steps=warmup_steps, lr_start=lr_start
    )

    def decay(j):
        return lr_end + (lr - lr_end) * (1 - j / span) ** power

    assert_rates(actual, lambda i: warmed_up(i, warmup_steps, lr_start, lr, decay), steps)


def test_a_straight_line_by_hand():
    np.testing.assert_allclose(schedules.polynomial(4, lr=1.0, power=1.0), [1, 0.75, 0.5, 0.25], rtol=1e-12)
    actual = schedules.polynomial(6, lr=1.0, lr_end=0.2, power=1.0, warmup_steps=2, lr_start=0.1)
    np.testing.assert_allclose(actual, [0.1, 0.55, 1.0, 0.8, 0.6, 0.4], rtol=1e-12)


@fuzz
@given(warmups(), rates, rates, rates)
def test_cosine(lengths, lr, lr_end, lr_start):
    steps, warmup_steps = lengths
    span = steps - warmup_steps
    actual = schedules.cosine(steps, lr=lr, lr_end=lr_end, warmup_steps=warmup_steps, lr_start=lr_start)

    def decay(j):
        return lr_end + 0.5 * (lr - lr_end) * (1 + math.cos(math.pi * j / span))

    assert_rates(actual, lambda i: warmed_up(i, warmup_steps, lr_start, lr, decay), steps)


def test_cosine_by_hand():
    actual = schedules.cosine(4, lr=1.0, lr_end=0.0)
    np.testing.assert_allclose(actual, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5], rtol=1e-12)


DECAYS = {
    schedules.cosine: {"lr": 0.7},
    schedules.polynomial: {"lr": 0.7, "power": 2.0},
    schedules.exponential: {"lr": 0.7, "every": 3, "gamma": 0.5},
    schedules.multi_step: {"lr": 0.7, "milestones": [4, 12, 20], "gamma": 0.1},
}


@pytest.mark.parametrize("schedule", DECAYS, ids=lambda schedule: schedule.__name__)
@fuzz
@given(warmups(), st.integers(0, 60), rates)
def test_cool_down(schedule, lengths, cooldown_steps, lr_end):
    steps, warmup_steps = lengths
    cooldown_steps = min(cooldown_steps, steps - warmup_steps)
    keys = {**DECAYS[schedule], "warmup_steps": warmup_steps, "lr_start": 0.2}
    if schedule not in (schedules.exponential, schedules.multi_step):
        keys["lr_end"] = lr_end
    rates_of_run = schedules.cool_down(
        steps, lambda n: schedule(n, **keys), cooldown_steps=cooldown_steps, lr_end=lr_end
    )
    left = steps - cooldown_steps
    expected = [schedule(left, **keys)[i] if i < left else lr_end for i in range(steps)]
    np.testing.assert_array_equal(rates_of_run, expected)
    if not cooldown_steps:
        assert rates_of_run.tobytes() == schedule(steps, **keys).tobytes()


def test_cool_down_by_hand():
    actual = schedules.cool_down(
        9,
        lambda n: schedules.polynomial(n, lr=1.0, lr_end=0.2, power=1.0, warmup_steps=2),
        cooldown_steps=3,
        lr_end=0.2,
    )
    np.testing.assert_allclose(actual, [0, 0.5, 1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2], rtol=1e-12)


@pytest.mark.parametrize(
    ("keys", "named"),
    [({"cooldown_steps": 6}, "cooldown_steps"), ({"cooldown_steps": -1}, "cooldown_steps"),
     ({"lr_end": -0.1}, "lr_end"), ({"steps": 0, "cooldown_steps": 0}, "steps")],
)  # fmt: skip
def test_a_bad_cool_down_is_named(keys, named):
    keys = {"steps": 5, "cooldown_steps": 2, "lr_end": 0.1, **keys}
    with pytest.raises(ValueError, match=rf"^{named} must be"):
        schedules.cool_down(keys.pop("steps"), lambda n: schedules.constant(n, lr=1.0), **keys)


CALLS = {
    schedules.constant: {"lr": 0.1},
    schedules.piecewise_linear: {"knots": [0, 5], "values": [0.0, 0.1]},
    schedules.one_cycle: {"lr": 0.1, "warmup_steps": 2},
    schedules.cyclic: {"lr_min": 0.1, "lr_max": 0.2, "half_cycle": 3},
    schedules.multi_step: {"lr": 0.1, "milestones": [2, 4], "gamma": 0.5, "warmup_steps": 2, "lr_start": 0.0},
    schedules.exponential: {"lr": 0.1, "every": 2, "gamma": 0.5, "warmup_steps": 2, "lr_start": 0.0},
    schedules.polynomial: {"lr": 0.1, "lr_end": 0.0, "power": 2.0, "warmup_steps": 2, "lr_start": 0.0},
    schedules.cosine: {"lr": 0.1, "lr_end": 0.0, "warmup_steps": 2, "lr_start": 0.0},
}
BAD_VALUES = {
    "lr": [-0.1, math.nan, math.inf],
    "lr_min": [-0.1, 0.3],
    "lr_max": [-0.1, math.nan],
    "lr_start": [-0.1],
    "lr_end": [-0.1],
    "gamma": [-0.5, math.nan],
    "power": [-1.0],
    "every": [0, -1, 1.5],
    "half_cycle": [0, -1, math.nan, math.inf],
    "warmup_steps": [-1, 11, math.nan],
    "milestones": [[4, 2], [2, 2], [-1], [1.5]],
    "knots": [[0, 0], [5, 0], [0, math.nan], [0], [0, 5, 9], []],
    "values": [[0.0, -0.1], [0.0, math.nan], [0.0], []],
}


@pytest.mark.parametrize("schedule", CALLS, ids=lambda schedule: schedule.__name__)
@pytest.mark.parametrize("steps", [0, -3, 2.5])
def test_a_run_has_a_whole_positive_number_of_steps(schedule, steps):
    with pytest.raises(ValueError, match=r"^steps must be .*$"):
        schedule(steps, **CALLS[schedule])


@pytest.mark.parametrize(
    ("schedule", "key", "bad"),
    [(schedule, key, bad) for schedule, call in CALLS.items() for key in call for bad in BAD_VALUES[key]],
)
def test_a_bad_argument_is_named_in_one_line(schedule, key, bad):
    call = CALLS[schedule]
    schedule(10, **call)
    with pytest.raises(ValueError, match=rf"^.*{key}.*$") as error:
        schedule(10, **(call | {key: bad}))
    assert "\n" not in str(error.value)


def test_an_unknown_cycle_mode_is_refused():
    with pytest.raises(ValueError, match="'triangular', 'triangular2' or 'exp_range', got 'square'"):
        schedules.cyclic(10, lr_min=0.1, lr_max=0.2, half_cycle=3, mode="square")


@pytest.mark.parametrize("schedule", CALLS, ids=lambda schedule: schedule.__name__)
def test_a_run_of_one_step_gets_one_finite_rate(schedule):
    call = CALLS[schedule] | ({"warmup_steps": 1} if "warmup_steps" in CALLS[schedule] else {})
    rates_of_one_step = schedule(1, **call)
    assert rates_of_one_step.shape == (1,)
    assert np.isfinite(rates_of_one_step).all()
