# SPDX-License-Identifier: Apache-2.0
"""Trainings that a benchmark compares: runs of `train.py` that are kept, and figures of several."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.record import ROOT

# What train.py says of a training that cannot go on (training/soundness.py).
DIVERGED = re.compile(r"error: (the loss is \S+ at batch|\d+ updates in a row were skipped)")


class Diverged(SystemExit):
    """A training that cannot go on; the message is its own. It ends a benchmark that does not expect it."""


def train(config: str, run: Path, **keys: Any) -> dict[str, Any]:
    """The summary of a run of `train.py` with configs/`config`: a new one, or one that is there already.

    A run that was interrupted goes on where it stopped.

    Raises:
        Diverged: it cannot go on, as its loss or its gradients are not finite.
    """
    if not (run / "summary.json").exists():
        words = ["--resume", str(run)]
        if not (run / "config.yaml").exists():
            words = ["--config_path", f"configs/{config}", "--output_path", str(run.parent)]
            words += ["--run_name", run.name, *flags_of(keys)]
        command, end = [sys.executable, "train.py", *words], ""
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                sys.stderr.write(line)
                end = line if DIVERGED.match(line) else end
        if end:
            raise Diverged(f"{run}: {end.strip()}")
        if process.returncode:
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
    """For the repository: no wider than a page shows it, and in 256 colours, a third as large."""
    image = Image.open(path)
    image.thumbnail((900, image.height))
    image.quantize(256).save(path, optimize=True)
