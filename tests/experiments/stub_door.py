# SPDX-License-Identifier: Apache-2.0
"""Stands in for train.py and eval.py: leaves at once what they leave behind, by the name of the recipe.

A recipe `broken` fails, `mute` leaves nothing, and `slow` has only begun when it is asked to stop, unless it
resumes; `deaf` does not listen then. Each call is a line of the file `calls` beside it: door, recipe, run,
whether it resumes, cores.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.experiments.fake_runs import fake_run


def train(folder, resumes):
    recipe = folder.parent.name
    if recipe == "broken":
        print("a first line\nerror: the loss is nan at batch 1; lower lr", flush=True)
        sys.exit(2)
    if recipe in ("slow", "deaf") and not resumes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if recipe == "deaf" else lambda *_: sys.exit(143))
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        time.sleep(60)
    if resumes:
        (folder / "config.yaml").unlink()
        folder.rmdir()
    if recipe != "mute":
        fake_run(folder)


door, keys = Path(sys.argv[0]), dict(zip(sys.argv[1::2], sys.argv[2::2]))
resumes = "--resume" in keys
run = Path(keys["--resume"]) if resumes else Path(keys.get("--output_path", ""), keys.get("--run_name", ""))
run = Path(keys["--checkpoint_path"]).parents[1] if door.stem == "eval" else run
with (door.parent / "calls").open("a") as calls:
    calls.write(
        json.dumps([door.stem, run.parent.name, run.name, resumes, sorted(os.sched_getaffinity(0))]) + "\n"
    )
train(run, resumes) if door.stem == "train" else print('{"top1": 61.5}')
