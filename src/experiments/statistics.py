# SPDX-License-Identifier: Apache-2.0
"""What a few runs say: their spread, a difference with its interval, and the runs that it would take.

Intervals and tests are two-sided: 95 % intervals, a level of 5 %, a power of 80 %.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL, POWER = 0.05, 0.80
MOST_RUNS = 10_000  # `runs_needed` looks no further


@dataclass(frozen=True)
class Spread:
    """The figures of several runs; `sd` is the sample standard deviation (n - 1), None of a single run."""

    n: int
    mean: float
    sd: float | None
    min: float
    max: float


@dataclass(frozen=True)
class Difference:
    """A difference of two means; `low` and `high` end its 95 % interval, None where runs are too few."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> list[float] | None:
        return None if self.low is None else [self.low, self.high]


def spread(values: Sequence[float]) -> Spread:
    """The spread of one or more values."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), sd, float(min(values)), float(max(values)))


def difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """mean(values) - mean(base), of runs that are not paired, with Welch's interval.

    With variances v of the two means (sd^2 / n), the interval is the difference +- t sqrt(v1 + v2), where t
    has (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 - 1)) degrees of freedom (Welch, Biometrika 34, 1947):
    the two need neither one variance nor as many runs.
    """
    mean = float(np.mean(values) - np.mean(base))
    if min(len(values), len(base)) < 2:
        return Difference(mean)
    parts = [(np.var(group, ddof=1) / len(group), len(group) - 1) for group in (values, base)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Difference(mean, mean, mean)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return _with_interval(mean, variance, freedom)


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """The mean of values - base, of the same runs measured in two ways, with Student's interval."""
    differences = np.subtract(values, base)
    mean, n = float(np.mean(differences)), len(differences)
    return Difference(mean) if n < 2 else _with_interval(mean, np.var(differences, ddof=1) / n, n - 1)


def _with_interval(mean: float, variance: float, freedom: float) -> Difference:
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom) * math.sqrt(variance))
    return Difference(mean, mean - half, mean + half)


def pooled_sd(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation that groups have in common, by their degrees of freedom; None without any."""
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None
    return math.sqrt(sum((len(group) - 1) * float(np.var(group, ddof=1)) for group in groups) / freedom)


def runs_needed(size: float, sd: float) -> int | None:
    """The runs of each of two arms that show a difference of that size, by a t-test of the usual power.

    The least n for which a two-sided t-test at the level 5 % finds it in 80 % of all cases: its statistic
    has the noncentral t distribution with 2n - 2 degrees of freedom and noncentrality size / (sd sqrt(2/n))
    (Cohen, Statistical Power Analysis, 1988; 64 runs where the difference is half an sd). A simpler rule in
    use asks that the interval be as wide as the difference, n = 2 (1.96 sd / size)^2: about half as many
    runs, which miss every second such difference.

    Args:
        size: the difference, of either sign, in the unit of `sd`.
        sd: of one run, the same in both arms.

    Returns:
        2 or more; None: over MOST_RUNS, or `size` is 0.
    """
    if size == 0:
        return None
    if sd == 0:
        return 2
    found = bisect.bisect_left(range(2, MOST_RUNS + 1), POWER, key=lambda n: _power(n, abs(size) / sd))
    return found + 2 if found + 2 <= MOST_RUNS else None


def _power(n: int, effect: float) -> float:
    freedom, noncentrality = 2 * n - 2, effect * math.sqrt(n / 2)
    if noncentrality > 30:  # certain, and beyond what scipy computes
        return 1.0
    critical = stats.t.ppf(1 - LEVEL / 2, freedom)
    return float(stats.nct.sf(critical, freedom, noncentrality))
