# SPDX-License-Identifier: Apache-2.0
"""What msrun starts in a worker's place: it starts the worker, and tells the launcher how it ended.

msrun says neither which rank ended nor by what, and kills the others at once. So this process binds its
rank's cores, runs the command, and keeps a failure to itself until the launcher ends it. The file STATE/NAME
(rank_R, or scheduler) has four words: the worker's process, this one, how the worker ended (its code as of
`subprocess`) and when; the last two are "-" while it runs. Needs the standard library only.

    QUARTET_STATE=FOLDER python3 worker.py COMMAND [WORD ...]
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """This process is killed when the one that started it ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_launcher() -> None:
    """`die_with_parent` for msrun, which Slurm's warning to all processes of a job would end."""
    die_with_parent()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _begin_worker() -> None:
    die_with_parent()
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # what msrun ignores, its children would ignore too


def _launcher_is_gone() -> bool:
    try:
        os.kill(int(os.environ["QUARTET_LAUNCHER"]), 0)
    except ProcessLookupError:
        return True
    return False


def _write(name: str, text: str) -> None:
    # In place and always of the same length, so that the end can be told on a full disk too.
    handle = os.open(os.path.join(os.environ["QUARTET_STATE"], name), os.O_WRONLY | os.O_CREAT, 0o644)
    with open(handle, "w") as file:
        file.write(f"{text:<63}\n")


def _work_ended(name: str, code: int) -> int:
    """The worker's exit code: of its work, where Python failed after that.

    MindSpore 2.10 disconnects from the other processes when Python ends, and crashes there now and then: one
    of its threads still hears from a connection that is being closed. Python itself ends with 120 where its
    last output could not be written, as on a full disk.
    """
    if code not in (-signal.SIGSEGV, -signal.SIGABRT, 120):
        return code
    try:
        with open(os.path.join(os.environ["QUARTET_HEARTBEAT"], name)) as file:
            done = int(file.read().split()[2])
    except (OSError, ValueError, IndexError):
        return code
    if done < 0:
        return code
    with contextlib.suppress(OSError):
        print(f"Python ended with code {code} after the work had ended with exit code {done}", flush=True)
    return done


def main(command: list[str]) -> int:
    die_with_parent()
    if _launcher_is_gone():  # before the line above could help
        return 1
    scheduler = os.environ.get("MS_ROLE") == "MS_SCHED"
    name = "scheduler" if scheduler else f"rank_{os.environ['RANK_ID']}"
    cores = json.loads(os.environ.get("QUARTET_CORES") or "{}").get(name)
    if cores:
        os.sched_setaffinity(0, cores)
    worker = subprocess.Popen(command, preexec_fn=_begin_worker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        # Slurm may send them to all processes of a job; the launcher passes them on.
        signal.signal(number, lambda number, _: None)
    pids = f"{worker.pid} {os.getpid()}"
    _write(name, f"{pids} - -")
    code = _work_ended(name, worker.wait())
    _write(name, f"{pids} {code} {time.monotonic():.6f}")
    while code:
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
