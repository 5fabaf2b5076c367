# SPDX-License-Identifier: Apache-2.0
"""Signs of life of one process for the launcher that watches it: that it runs, how far it is, and its run.

`python -m src.tools.launch` names a folder by the environment variable QUARTET_HEARTBEAT. A thread of each
worker then writes three numbers to the file rank_R there once a second: beats, progress (the calls of
`progress`), and the exit code of work that has ended (-1 before). A process that is stopped or whose
interpreter is stuck no longer beats; one that waits for the others for ever beats without progress. The file
rank_R.run has what `announce` was told. Elsewhere nothing is written.
"""

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .files import write_text

INTERVAL = 1.0  # seconds

_beats = 0
_made = 0
_code = -1


@dataclass(frozen=True)
class Beat:
    """The numbers of one worker. `code`: its work's exit code; None while it works."""

    beats: int = 0
    progress: int = 0
    code: int | None = None


@dataclass(frozen=True)
class Run:
    """A training's folder, and the words for the door that continue it."""

    folder: Path
    words: list[str]


def _path() -> Path | None:
    """The file, if a launcher asked for it and this process is a worker (not msrun's scheduler)."""
    folder = os.environ.get("QUARTET_HEARTBEAT")
    if not folder or os.environ.get("MS_ROLE") == "MS_SCHED":
        return None
    return Path(folder, f"rank_{os.environ.get('RANK_ID') or 0}")


def start() -> None:
    """Beats from now on."""
    path = _path()
    if path:
        threading.Thread(target=_beat, args=(path,), name="heartbeat", daemon=True).start()


def done(code: int) -> None:
    """The work has ended with this exit code; MindSpore's clean-up comes after it, and may crash."""
    global _code
    _code = code
    path = _path()
    if path:
        _write(path)


def progress() -> None:
    """A batch, a folder or the like is done: call it from the thread that works."""
    global _made
    _made += 1


def announce(run_dir: str | os.PathLike, words: Sequence[str] | None = None) -> None:
    """Tells the launcher the folder of this training.

    Args:
        words: the door's words that continue it; by default --resume and the folder.
    """
    path = _path()
    if path:
        facts = {"folder": str(run_dir), "words": list(words or ("--resume", str(run_dir)))}
        with contextlib.suppress(UserError):  # a training does not end because its launcher's disk is full
            write_text(path.with_suffix(".run"), json.dumps(facts))


def read(folder: Path, rank: int) -> Beat:
    """What a worker has written last."""
    with contextlib.suppress(OSError, ValueError):
        beats, made, code = map(int, (folder / f"rank_{rank}").read_text().split())
        return Beat(beats, made, None if code < 0 else code)
    return Beat()


def announced(folder: Path, rank: int) -> Run | None:
    """The run that a worker has announced; None if there is none."""
    with contextlib.suppress(OSError):
        facts = json.loads((folder / f"rank_{rank}.run").read_text(encoding="utf-8"))
        return Run(Path(facts["folder"]), facts["words"])
    return None


def _write(path: Path) -> None:
    # In place and always of the same length: no reader sees an empty file, and a disk that has become full
    # does not matter. A full disk is for the training to tell.
    global _beats
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        with open(handle, "w") as file:
            file.write(f"{_beats:012d} {_made:012d} {_code:3d}\n")
    _beats += 1


def _beat(path: Path) -> None:
    stop = threading.Event()
    while True:
        _write(path)
        stop.wait(INTERVAL)
