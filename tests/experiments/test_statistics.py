# SPDX-License-Identifier: Apache-2.0
"""Spread, intervals and the number of runs, against hand-made numbers, scipy and published tables."""

import numpy as np
import pytest
from scipy import stats

from src.experiments.statistics import (
    MOST_RUNS,
    difference,
    paired_difference,
    pooled_sd,
    runs_needed,
    spread,
)

RNG = np.random.default_rng(1)
GROUPS = [(RNG.normal(90, 0.3, n), RNG.normal(89.5, 0.9, m)) for n, m in ((3, 3), (2, 5), (7, 2))]


def test_the_spread_by_hand():
    found = spread([90.0, 91.0, 92.5])
    assert (found.n, found.min, found.max) == (3, 90.0, 92.5)
    assert found.mean == pytest.approx(273.5 / 3)
    assert found.sd == pytest.approx(np.sqrt((7 / 6) ** 2 / 2 + (1 / 6) ** 2 / 2 + (8 / 6) ** 2 / 2))
    assert spread([90.0]).sd is None


@pytest.mark.parametrize(("values", "base"), GROUPS)
def test_welchs_interval_is_scipys(values, base):
    found = difference(values, base)
    expected = stats.ttest_ind(values, base, equal_var=False).confidence_interval(0.95)
    assert found.mean == pytest.approx(values.mean() - base.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    back = difference(base, values)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_welchs_interval_by_hand():
    """Variances of the means 2 / 2 and 8 / 2; degrees of freedom 25 / (1 + 16); t from its own equation."""
    found = difference([1.0, 3.0], [10.0, 14.0])
    assert found.mean == -10
    half = (found.high - found.low) / 2
    assert stats.t.cdf(half / np.sqrt(5), 25 / 17) == pytest.approx(0.975)


def test_the_paired_interval_is_scipys():
    values, base = RNG.normal(93, 0.5, 4), RNG.normal(92, 0.5, 4)
    found = paired_difference(values, base)
    expected = stats.ttest_rel(values, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_too_few_runs_have_no_interval_and_equal_ones_no_width():
    assert difference([90.0], [89.0, 88.0]).low is None and difference([90.0], [89.0, 88.0]).mean == 1.5
    assert paired_difference([90.0], [89.0]).low is None
    equal = difference([90.0, 90.0], [89.0, 89.0])
    assert (equal.mean, equal.low, equal.high) == (1, 1, 1)


def test_the_pooled_deviation():
    assert pooled_sd([[1.0, 3.0], [10.0, 11.0, 12.0], [5.0]]) == pytest.approx(np.sqrt((2 + 2) / 3))
    assert pooled_sd([[1.0], [2.0]]) is None


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_runs_needed_are_those_of_cohens_tables(effect, runs):
    """The sizes that G*Power and Cohen's tables give for power 0.80 at the level 0.05, two-sided."""
    assert runs_needed(0.15 * effect, 0.15) == runs_needed(-effect, 1.0) == runs


def test_the_power_is_reached_by_simulation():
    """Of many pairs of arms with that many runs, four in five show the difference."""
    runs, rng = runs_needed(0.7, 0.5), np.random.default_rng(0)
    values, base = rng.normal(0.7, 0.5, (20_000, runs)), rng.normal(0, 0.5, (20_000, runs))
    found = (stats.ttest_ind(values, base, axis=1).pvalue < 0.05).mean()
    assert 0.80 <= found < 0.88  # the next smaller whole number is below 0.8
    fewer = (stats.ttest_ind(values[:, 1:], base[:, 1:], axis=1).pvalue < 0.05).mean()
    assert fewer < 0.80


def test_the_ends_of_runs_needed():
    assert runs_needed(50, 0.1) == runs_needed(1, 0) == 2
    assert runs_needed(0, 0.1) is None and runs_needed(0.001, 1) is None
    assert runs_needed(2.8016 * np.sqrt(2 / MOST_RUNS) * 1.001, 1) == pytest.approx(MOST_RUNS, rel=0.01)
