"""Two ways to prepare images, timed in turns, so that a drift of the machine's speed meets both."""

import statistics
import time
from collections.abc import Callable, Sequence


def spread(values: Sequence[float], digits: int = 0) -> dict[str, float]:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {"n": len(values), **{name: round(value, digits or None) for name, value in figures.items()}}


def images_per_second(run: Callable[[], int]) -> float:
    """`run` prepares images and returns their number."""
    start = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - start)


def take_turns(ours: Callable[[], int], theirs: Callable[[], int], repeats: int) -> dict[str, dict | float]:
    """Each runs once before it is timed.

    Returns:
        images a second of both, `ratio_of_medians` and `ratio_by_repeat`.
    """
    ours(), theirs()
    rates = []
    for repeat in range(repeats):
        rates.append((images_per_second(ours), images_per_second(theirs)))
        print(f"repeat {repeat + 1}: {rates[-1][0]:,.0f} against {rates[-1][1]:,.0f} images/s")
    first, second = zip(*rates, strict=True)
    return {
        "ours_images_per_second": spread(first),
        "theirs_images_per_second": spread(second),
        "ratio_of_medians": round(statistics.median(first) / statistics.median(second), 3),
        "ratio_by_repeat": spread([a / b for a, b in rates], 3),
    }
