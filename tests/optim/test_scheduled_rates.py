# SPDX-License-Identifier: Apache-2.0
"""The keys of a config become the rates of a run."""

import logging

import numpy as np
import pytest

from src.common.errors import UserError
from src.model_utils.config import check
from src.optim import schedules
from src.resnet9.config import ResNet9Config

UPDATES = 45
PER_EPOCH = 2.5
BASE = {"lr": 0.3, "lr_start": 0.02, "lr_end": 0.01, "epochs": 18, "warmup_epochs": 4, "lr_every": 6}
RISE = {"lr": 0.3, "warmup_steps": 10, "lr_start": 0.02}

# schedule -> (further keys, the array of src/optim/schedules.py)
EXPECTED = {
    "constant": ({}, schedules.constant(UPDATES, lr=0.3)),
    "one_cycle": ({}, schedules.one_cycle(UPDATES, lr_end=0.01, **RISE)),
    "piecewise": (
        {"lr_epochs": [0, 4.2, 18], "lr_values": [0.1, 0.6, 0]},
        schedules.piecewise_linear(UPDATES, knots=[0, 10.5, 45], values=[0.1, 0.6, 0]),
    ),
    "triangular": ({}, schedules.cyclic(UPDATES, lr_min=0.02, lr_max=0.3, half_cycle=15)),
    "triangular2": (
        {},
        schedules.cyclic(UPDATES, lr_min=0.02, lr_max=0.3, half_cycle=15, mode="triangular2"),
    ),
    "exp_range": (
        {"lr_gamma": 0.99},
        schedules.cyclic(UPDATES, lr_min=0.02, lr_max=0.3, half_cycle=15, mode="exp_range", gamma=0.99),
    ),
    "step": ({"lr_gamma": 0.2}, schedules.exponential(UPDATES, lr=0.3, every=15, gamma=0.2)),
    "multi_step": (
        {"lr_milestones": [4, 9.1], "lr_gamma": 0.2},
        schedules.multi_step(UPDATES, milestones=[10, 23], gamma=0.2, **RISE),
    ),
    "halving": ({}, schedules.exponential(UPDATES, lr=0.3, every=15, gamma=0.5)),
    "exponential": ({"lr_gamma": 0.7}, schedules.exponential(UPDATES, every=15, gamma=0.7, **RISE)),
    "polynomial": ({"lr_power": 2}, schedules.polynomial(UPDATES, lr_end=0.01, power=2, **RISE)),
    "linear": ({}, schedules.polynomial(UPDATES, lr_end=0.01, power=1, **RISE)),
    "cosine": ({}, schedules.cosine(UPDATES, lr_end=0.01, **RISE)),
    "thor": (
        {"lr_power": 3, "lr_milestones": [9.1], "lr_gamma": 0.2, "lr_zero_epoch": 20},
        schedules.thor(UPDATES, lr=0.3, zero_step=50, power=3, milestones=[23], gamma=0.2),
    ),
}


def _rates(*, updates=UPDATES, **keys) -> np.ndarray:
    config = check({**BASE, **keys}, ResNet9Config)
    return schedules.scheduled_rates(config, updates=updates, updates_per_epoch=PER_EPOCH)


def test_every_schedule_of_the_config_is_tried():
    choices = ResNet9Config.model_fields["lr_schedule"].annotation.__args__
    assert list(EXPECTED) == list(choices) == list(schedules.SCHEDULES)
    arrays = [array.tobytes() for _, array in EXPECTED.values()]
    assert len(set(arrays)) == len(arrays)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_rates_are_those_of_the_schedule(name):
    keys, expected = EXPECTED[name]
    rates = _rates(lr_schedule=name, **keys)
    assert rates.shape == (UPDATES,)
    np.testing.assert_array_equal(rates, expected)


def test_a_run_in_batches_has_the_rates_of_its_epochs():
    keys = {"lr_schedule": "cosine", "epochs": 1, "warmup_epochs": 2, "train_steps": 20}
    np.testing.assert_array_equal(
        _rates(updates=20, **keys),
        schedules.cosine(20, lr=0.3, lr_end=0.01, lr_start=0.02, warmup_steps=5),
    )


def test_an_interval_is_at_least_one_update():
    np.testing.assert_array_equal(
        _rates(lr_schedule="halving", lr_every=0.01),
        schedules.exponential(UPDATES, lr=0.3, every=1, gamma=0.5),
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"lr_schedule": "piecewise", "lr_epochs": [0, 5, 5], "lr_values": [0, 1, 0]},
        {"lr_schedule": "piecewise", "lr_epochs": [0, 5], "lr_values": [0, -1]},
        {"lr_schedule": "multi_step", "lr_milestones": [9, 4]},
        {"lr_schedule": "multi_step", "lr_milestones": [-1, 4]},
        {"lr_schedule": "multi_step", "lr_milestones": [4, 4.1]},
        {"lr_schedule": "triangular", "lr_start": 0.5},
    ],
)
def test_a_schedule_that_does_not_work_is_a_user_error(keys):
    with pytest.raises(UserError) as caught:
        _rates(**keys)
    message = str(caught.value)
    assert message.startswith(
        f"lr_schedule {keys['lr_schedule']} over {keys.get('updates', UPDATES)} updates: "
    )
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("length", [{"epochs": 3}, {"train_steps": 8}])
@pytest.mark.parametrize("name", [name for name, row in schedules.SCHEDULES.items() if row.warms_up])
def test_a_warmup_longer_than_the_run_takes_a_quarter_of_it(name, length, caplog):
    """As where a long recipe is cut short to be tried."""
    keys = {**EXPECTED[name][0], **length, "lr_schedule": name}
    with caplog.at_level(logging.INFO, "quartet"):
        rates = _rates(updates=8, **keys)
    np.testing.assert_array_equal(rates, _rates(updates=8, **{**keys, "warmup_epochs": 2 / PER_EPOCH}))
    (record,) = caplog.records
    assert record.getMessage() == (
        "warmup_epochs 4: 10 updates do not fit into a run of 8; scaled to a quarter of it (2)"
    )


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_of_hardly_any_update_has_no_warmup(updates):
    rates = _rates(lr_schedule="cosine", lr_start=0.0, updates=updates)
    assert rates.shape == (updates,) and rates[0] == 0.3


def test_a_schedule_without_a_warmup_says_so(caplog):
    with caplog.at_level(logging.INFO, "quartet"):
        _rates(lr_schedule="step")
        _rates(lr_schedule="step", warmup_epochs=0)
    assert [record.getMessage() for record in caplog.records] == [
        "lr_schedule step has no warm-up: warmup_epochs 4 has no effect"
    ]


def test_a_warmup_that_rounding_made_too_long_is_the_whole_run():
    rates = _rates(lr_schedule="one_cycle", updates=9)
    np.testing.assert_array_equal(
        rates, schedules.one_cycle(9, lr=0.3, warmup_steps=9, lr_start=0.02, lr_end=0.01)
    )


@pytest.mark.parametrize("name", [name for name, row in schedules.SCHEDULES.items() if row.cools_down])
def test_the_last_epochs_of_a_cool_down_have_the_last_rate(name):
    keys = EXPECTED[name][0]
    rates = _rates(lr_schedule=name, cooldown_epochs=3, **keys)
    shorter = _rates(lr_schedule=name, updates=UPDATES - 8, **keys)
    np.testing.assert_array_equal(rates, [*shorter, *[0.01] * 8])


def test_a_cool_down_fills_what_the_warm_up_leaves_and_no_more():
    keys = {"lr_schedule": "linear", "warmup_epochs": 4, "cooldown_epochs": 14}
    expected = [*np.linspace(0.02, 0.3, 10, endpoint=False), *[0.01] * 34]
    np.testing.assert_allclose(_rates(updates=44, **keys), expected, rtol=1e-12)
    np.testing.assert_array_equal(
        _rates(lr_schedule="linear", warmup_epochs=0, cooldown_epochs=18), [0.01] * UPDATES
    )
    # Cut short, they take a quarter together, in the same proportion.
    warmup, cooldown = round(20 / 4 * 4 / 18), round(20 / 4 * 14 / 18)
    assert (warmup, cooldown) == (1, 4)
    np.testing.assert_array_equal(
        _rates(updates=20, train_steps=20, **keys),
        [*schedules.polynomial(16, lr=0.3, lr_end=0.01, power=1, lr_start=0.02, warmup_steps=1), *[0.01] * 4],
    )
