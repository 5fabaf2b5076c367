# SPDX-License-Identifier: Apache-2.0
"""When training cannot go on: losses that are not finite, updates that are skipped without end."""

import math

import pytest

from src.training.soundness import MAX_SKIPPED, Row, Soundness
from tests.helpers.errors import fails


def soundness(**settings):
    return Soundness(**{"max_nonfinite": 3, "updates": 1000, "accumulate": 1, "dynamic": False, **settings})


def rows(start, count, *, loss=1.0, scale=1.0, overflow=1.0):
    return [Row(step, loss, scale, overflow, math.nan) for step in range(start, start + count)]


def test_losses_that_are_not_finite_count_while_they_follow_each_other():
    checks = soundness()
    checks.check(rows(1, 2, loss=math.nan, overflow=0.0))
    assert checks.nonfinite == 2
    checks.check(rows(3, 1, overflow=0.0))
    assert checks.nonfinite == 0
    checks.check(rows(4, 2, loss=math.inf, overflow=0.0))
    said = fails(checks.check, rows(6, 1, loss=math.nan, overflow=0.0))
    assert said.startswith("the loss is nan at batch 6, 3 batches in a row (max_nonfinite_steps)")


def test_endless_overflow_ends_the_run_although_the_loss_is_finite():
    checks = soundness()
    checks.check(rows(1, MAX_SKIPPED - 1))
    checks.check(rows(MAX_SKIPPED, 1, overflow=0.0))  # one that is made begins the count anew
    checks.check(rows(MAX_SKIPPED + 1, MAX_SKIPPED - 1))
    said = fails(checks.check, rows(2 * MAX_SKIPPED, 1))
    assert said.startswith(f"{MAX_SKIPPED} updates in a row were skipped, up to batch {2 * MAX_SKIPPED}")
    assert "lower lr" in said


@pytest.mark.parametrize(("updates", "most"), [(2, 2), (10, 5), (40, 20), (1000, 20)])
def test_half_of_a_short_run_is_enough(updates, most):
    checks = soundness(updates=updates)
    checks.check(rows(1, most - 1))
    assert f"{most} updates" in fails(checks.check, rows(most, 1))


def test_a_dynamic_scale_that_still_falls_is_no_reason():
    checks = soundness(dynamic=True)
    checks.check(rows(1, 100, scale=2.0))
    checks.check(rows(101, MAX_SKIPPED - 1, scale=1.0))
    assert "the loss scale stays at 1" in fails(checks.check, rows(101 + MAX_SKIPPED, 1, scale=1.0))


def test_only_batches_that_end_an_update_count():
    checks = soundness(accumulate=4)
    checks.check(rows(1, 4 * MAX_SKIPPED - 1))
    assert f"{MAX_SKIPPED} updates" in fails(checks.check, rows(4 * MAX_SKIPPED, 1))
