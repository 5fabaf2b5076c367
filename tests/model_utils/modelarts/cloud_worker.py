# SPDX-License-Identifier: Apache-2.0
"""A door without MindSpore: says what it was given and saw, writes outputs, and ends as it is told to."""

import fcntl
import json
import os
import sys
from pathlib import Path

from src.common.cli import run
from src.common.errors import UserError
from src.model_utils.config import parse_overrides
from src.model_utils.modelarts import on_modelarts
from src.model_utils.modelarts.keys import CloudKeys
from src.shared_config import SharedConfig

CLOUD = CloudKeys.model_fields


def _somebody_works():
    """Whether a process, this one too, counts as at work for a job on this server."""
    for path in Path(os.environ["TMPDIR"]).glob("quartet-*/*/run"):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def main(arguments):
    fields = SharedConfig.model_fields
    keys = {name: word.read(name, fields.get(name)) for name, word in parse_overrides(arguments).items()}
    # What is said of the cloud are its defaults: a run does not remember it.
    keys = {name: v for name, v in keys.items() if name not in CLOUD or v != CLOUD[name].default}
    ending = keys.pop("ending", "well")
    seen = sorted(
        str(path.relative_to(keys["data_path"]))
        for path in Path(keys.get("data_path", "nowhere")).rglob("*")
        if path.is_file()
    )
    facts = {"keys": keys, "seen": seen, "moxing": "moxing" in sys.modules, "works": _somebody_works()}
    print(json.dumps(facts), flush=True)
    if "output_path" in keys:
        folder = Path(keys["output_path"], "run", "checkpoints")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").write_text("weights")
        (folder.parent / "metrics.jsonl").write_text("{}\n")
    if ending == "user error":
        raise UserError("the data is of the wrong kind")
    if ending == "crash":
        raise RuntimeError("a bug")
    return ending if isinstance(ending, int) else 0


if __name__ == "__main__":
    run(main, around=on_modelarts())
