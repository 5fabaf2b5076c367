# SPDX-License-Identifier: Apache-2.0
"""Several ways to prepare images, timed in turns, so that a drift of the machine's speed meets all."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.record import spread


def compare(first: Sequence[float], second: Sequence[float]) -> dict[str, dict | float]:
    """How rates that were measured in turns compare: `ratio_of_medians` and `ratio_by_repeat`."""
    return {
        "ratio_of_medians": round(statistics.median(first) / statistics.median(second), 3),
        "ratio_by_repeat": spread([a / b for a, b in zip(first, second, strict=True)], 3),
    }


def images_per_second(run: Callable[[], int]) -> float:
    """`run` prepares images and returns their number."""
    start = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - start)


def rates_in_turns(runs: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Images a second of each repeat. Each runs once before it is timed."""
    for run in runs.values():
        run()
    rates = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            rates[name].append(images_per_second(run))
        shown = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())
        print(f"repeat {repeat + 1}: {shown} images/s")
    return rates


def take_turns(ours: Callable[[], int], theirs: Callable[[], int], repeats: int) -> dict[str, dict | float]:
    """Images a second of both, `ratio_of_medians` and `ratio_by_repeat`; see `rates_in_turns`."""
    rates = rates_in_turns({"ours": ours, "theirs": theirs}, repeats)
    return {
        **{f"{name}_images_per_second": spread(values) for name, values in rates.items()},
        **compare(rates["ours"], rates["theirs"]),
    }
