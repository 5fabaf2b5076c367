# SPDX-License-Identifier: Apache-2.0
"""Trainings that a benchmark compares: runs of `train.py` that are kept, and figures of several."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.record import ROOT


def train(config: str, run: Path, **keys: Any) -> dict[str, Any]:
    """The summary of a run of `train.py` with configs/`config`: a new one, or one that is there already.

    A run that was interrupted goes on where it stopped.
    """
    if not (run / "summary.json").exists():
        words = ["--resume", str(run)]
        if not (run / "config.yaml").exists():
            words = ["--config_path", f"configs/{config}", "--output_path", str(run.parent)]
            words += ["--run_name", run.name, *flags_of(keys)]
        if subprocess.run([sys.executable, "train.py", *words], cwd=ROOT).returncode:
            sys.exit(
                f"{run}: training failed; see train.log there, or remove the folder; then call this again"
            )
    return json.loads((run / "summary.json").read_text())


def answer(*command: str, **keys: Any) -> dict[str, Any]:
    """The JSON object that `python COMMAND --key value ...` prints last."""
    words = [sys.executable, *command, *flags_of(keys)]
    ended = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def flags_of(keys: Mapping[str, Any]) -> list[str]:
    return [word for name, value in keys.items() for word in (f"--{name}", str(value))]


def shrink_picture(path: Path) -> None:
    """256 colours make a sheet of photographs a third as large, for the repository."""
    Image.open(path).quantize(256).save(path, optimize=True)
