"""What msrun starts in a worker's place: it starts the worker, and tells the launcher how it ended.

msrun says neither which rank ended nor by what, and kills the others at once. So this process binds its
rank's cores, runs the command, writes STATE/NAME.pid and STATE/NAME.end, and keeps a failure to itself until
the launcher ends it. NAME is rank_R, or scheduler. Needs the standard library only.

    QUARTET_STATE=FOLDER python3 worker.py COMMAND [WORD ...]
"""

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


def _launcher_is_gone() -> bool:
    try:
        os.kill(int(os.environ["QUARTET_LAUNCHER"]), 0)
    except ProcessLookupError:
        return True
    return False


def _write(name: str, text: str) -> None:
    path = os.path.join(os.environ["QUARTET_STATE"], name)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def _work_ended(name: str, code: int) -> int:
    """The worker's exit code: of its work, where it crashed after that.

    MindSpore 2.10 takes leave of the other processes when Python ends, and crashes there now and then: one of
    its threads still hears from a connection that is being closed.
    """
    if code not in (-signal.SIGSEGV, -signal.SIGABRT):
        return code
    try:
        with open(os.path.join(os.environ["QUARTET_HEARTBEAT"], name + ".done")) as file:
            done = int(file.read())
    except (OSError, ValueError):
        return code
    print(f"MindSpore crashed while it left the other processes; the work had ended with exit code {done}")
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
    worker = subprocess.Popen(command, preexec_fn=die_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: worker.send_signal(number))
    _write(name + ".pid", f"{worker.pid} {os.getpid()}")
    code = _work_ended(name, worker.wait())
    _write(name + ".end", f"{code} {time.monotonic()}")
    while code:
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
