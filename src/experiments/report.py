# SPDX-License-Identifier: Apache-2.0
"""The table of an ablation for people."""

from collections.abc import Sequence
from typing import Any

from .statistics import MOST_RUNS


def as_markdown(facts: dict[str, Any]) -> str:
    """The figures of `results.facts_of` as Markdown."""
    base = "the recipe before" if facts["baseline"] == "previous" else facts["baseline"]
    several = any(row["views"] != "none" for row in facts["rows"])
    title = ["recipe", *(["views"] if several else []), "n", "top-1 %", "SD", "min", "max"]
    title += ["epochs", "PFLOP", "minutes", f"to {base}", "95 % interval", "runs an arm"]
    lines = _table(title, [_cells(row, several) for row in facts["rows"]])
    lines += ["", *_notes(facts, base, several)]
    if facts["views"]:
        lines += [
            "",
            "What test-time views add to the plain view of the same weights, in points of top-1:",
            "",
        ]
        cells = [
            [row["recipe"], row["views"], str(row["n"]), f"{row['difference']:+.2f}", _interval(row)]
            for row in facts["views"]
        ]
        lines += _table(["recipe", "views", "n", "difference", "95 % interval"], cells)
    return "\n".join(lines) + "\n"


def _table(title: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---" if name in ("recipe", "views") else "---:" for name in title]
    return [f"| {' | '.join(cells)} |" for cells in (title, ruler, *rows)]


def _cells(row: dict[str, Any], several: bool) -> list[str]:
    compared = row["difference"] is not None
    return [
        row["recipe"],
        *([row["views"]] if several else []),
        str(row["n"]),
        f"{row['mean']:.2f}",
        _number(row["sd"]),
        f"{row['min']:.2f}",
        f"{row['max']:.2f}",
        f"{row['epochs']:g}",
        f"{row['pflop']:.3g}",
        f"{row['wall_seconds'] / 60:.1f}",
        f"{row['difference']:+.2f}" if compared else "",
        _interval(row),
        _needed(row["runs_needed"]) if compared and row["sd"] is not None else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(row: dict[str, Any]) -> str:
    return "" if row["interval"] is None else "{:+.2f} to {:+.2f}".format(*row["interval"])


def _needed(runs: int | None) -> str:
    return f"over {MOST_RUNS:,}" if runs is None else f"{runs:,}"


def _notes(facts: dict[str, Any], base: str, several: bool) -> list[str]:
    level, power = f"{facts['level']:.0%}".replace("%", " %"), f"{facts['power']:.0%}".replace("%", " %")
    notes = [
        f"Differences are to {base}, in points of top-1, with Welch's interval; each stands for itself, so "
        "one of twenty misses the truth. Minutes are wall time with evaluation, the mean of the runs.",
    ]
    if several:
        notes[0] += f" Each is to the row of {base} with the same views, or to its first where it has none."
    if facts["pooled_sd"] is not None:
        needed = ", ".join(f"{_needed(runs)} for {size}" for size, runs in facts["runs_needed"].items())
        notes.append(
            f'"Runs an arm" would show that difference by a two-sided t-test at the level {level} with the '
            f"power {power}, if it is true, at the pooled standard deviation of all arms, "
            f"{facts['pooled_sd']:.2f} points" + (f": {needed} points." if needed else ".")
        )
    if facts["environments"]:
        where = dict.fromkeys(
            f"{one['cpu']}, {one['cpu_count']} core{'' if one['cpu_count'] == 1 else 's'} a run, "
            f"MindSpore {one['mindspore']}"
            for one in facts["environments"]
        )
        notes.append(f"Trained on {'; '.join(where)}.")
    if facts["without_runs"]:
        notes.append(f"Without a finished run: {', '.join(facts['without_runs'])}.")
    return [line for note in notes for line in (note, "")][:-1]
