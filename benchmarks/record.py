# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: the command line, the figures of several measurements, and the record."""

import argparse
import datetime
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
LOAD = os.getloadavg()[0]  # before the work


def parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def end_with(main: Callable[[], int | None]) -> None:
    """Calls `main` and ends the process with what it returns; an error of use is one line, and the code 2."""
    from src.common.cli import run

    run(lambda _: main())


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """How many values there are, their mean and median, and the smallest and largest."""
    figures = {
        "mean": statistics.mean(values), "median": statistics.median(values),
        "min": min(values), "max": max(values),
    }  # fmt: skip
    return {"n": len(values), **{name: round(value, digits) for name, value in figures.items()}}


def version_of(package: str, *, python: str, path: Path | None = None) -> str:
    """The version of a package in another environment, or in a folder that `python` finds packages in."""
    ask = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    env = {**os.environ, "PYTHONPATH": str(path.resolve())} if path else None
    ended = subprocess.run([python, "-c", ask], env=env, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def write_record(
    path: Path, *, question: str, command: str, versions: Mapping[str, str] | None = None, **figures: Any
) -> dict[str, Any]:
    """Writes what was asked, when, by which command and where, with the figures; returns all of it."""
    from src.common.files import write_json
    from src.model_utils.environment import environment

    record = {
        "question": question,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "environment": {**environment(), **(versions or {})},
        "load_average_before": round(LOAD, 2),
        **figures,
    }
    write_json(path, record)
    return record
