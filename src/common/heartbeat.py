"""Signs of life of one process for the launcher that watches it: that it runs, and how far it is.

`python -m src.tools.launch` names a folder by the environment variable QUARTET_HEARTBEAT. A thread of each
worker then writes two numbers of 12 digits to the file rank_R there once a second: beats, and progress, the
calls of `progress`. A process that is stopped or whose interpreter is stuck no longer beats; one that waits
for the others for ever beats without progress. rank_R.done has the exit code of work that has ended.
Elsewhere nothing is written.
"""

import contextlib
import os
import threading

from ..model_utils.local_adapter import is_scheduler

INTERVAL = 1.0  # seconds

_made = 0


def _path() -> str | None:
    """The file, if a launcher asked for it and this process is a worker (not msrun's scheduler)."""
    folder = os.environ.get("QUARTET_HEARTBEAT")
    if not folder or is_scheduler():
        return None
    return os.path.join(folder, f"rank_{os.environ.get('RANK_ID') or 0}")


def start() -> None:
    """Beats from now on."""
    path = _path()
    if path:
        threading.Thread(target=_beat, args=(path,), name="heartbeat", daemon=True).start()


def done(code: int) -> None:
    """The work has ended with this exit code; MindSpore's leave-taking comes after it, and may crash."""
    path = _path()
    if path:
        with contextlib.suppress(OSError), open(path + ".done", "w") as file:
            file.write(str(code))


def progress() -> None:
    """A batch is done: call it from the thread that works."""
    global _made
    _made += 1


def _beat(path: str) -> None:
    beats, stop = 0, threading.Event()
    while True:
        # Always the same length: no reader sees an empty file. A full disk is for the training to tell.
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            with open(handle, "w") as file:
                file.write(f"{beats:012d} {_made:012d}\n")
        beats += 1
        stop.wait(INTERVAL)
