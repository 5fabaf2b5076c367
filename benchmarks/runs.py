"""Trainings that a benchmark compares: runs of `train.py` that are kept, and figures of several."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.record import ROOT


def train(config: str, run: Path, **keys: Any) -> dict[str, Any]:
    """The summary of a run of `train.py` with configs/`config`, which is started unless there is one."""
    if not (run / "summary.json").exists():
        words = [word for name, value in keys.items() for word in (f"--{name}", str(value))]
        command = [
            sys.executable, "train.py", "--config_path", f"configs/{config}",
            "--output_path", str(run.parent), "--run_name", run.name, *words,
        ]  # fmt: skip
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(f"{run}: training failed; remove the folder and call this again")
    return json.loads((run / "summary.json").read_text())


def shrink_picture(path: Path) -> None:
    """256 colours make a sheet of photographs a third as large, for the repository."""
    Image.open(path).quantize(256).save(path, optimize=True)
