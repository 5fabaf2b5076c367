# SPDX-License-Identifier: Apache-2.0
"""Works off the runs of an ablation: so many commands at a time, each on its share of the cores."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from ..common.files import writing
from ..model_utils.cpu import shares_of_cores, usable_cores
from ..parallel.launch.worker import die_with_parent
from .plan import Run

ROOT = Path(__file__).parents[2]  # of train.py and eval.py
_POLL = 0.2  # seconds
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True)
class Outcome:
    """What came of a call: the runs that failed, and whether a signal ended it."""

    failed: list[Run]
    stopped: bool


@dataclass
class _Task:
    """A command that runs; its output begins at `start` in the run's log."""

    run: Run
    words: list[str]
    process: subprocess.Popen
    start: int
    asked_to_stop: bool = False


def check_jobs(jobs: int) -> None:
    """Raises UserError where there are fewer cores than jobs, or no doors to start."""
    if not 1 <= jobs <= usable_cores():
        raise UserError(
            f"jobs: {jobs} given, allowed: a whole number from 1 to {usable_cores()}, this machine's cores"
        )
    if not (ROOT / "train.py").is_file():
        raise UserError(f"{ROOT / 'train.py'} is not there; call this in a clone of the repository")


def work_off(runs: Sequence[Run], *, jobs: int, say: Callable[[str], None]) -> Outcome:
    """Takes every run to its end, in this order; one that is complete is passed over.

    Each command computes on 1 / `jobs` of the cores; a single job has all of them. A run that fails is named,
    and the others go on. At a signal that asks to stop, each training saves and stops; at the second one it
    is killed, as it is when this process is: either way it goes on at the next call.

    Args:
        say: takes a line for each run that ends or fails.
    """
    work = _Work(runs, jobs, say)
    with _stop_requests() as came:
        try:
            while work.active or (work.waiting and not came):
                if not came:
                    work.start_more()
                time.sleep(_POLL)
                work.pass_on(came)
                work.settle(stopping=bool(came))
        finally:
            for task in work.active.values():  # after an error of ours
                task.process.kill()
    return Outcome(work.failed, bool(came))


class _Work:
    """Attributes: `waiting`, runs; `active`, a task for each share of the cores in use; `failed`, runs."""

    def __init__(self, runs: Sequence[Run], jobs: int, say: Callable[[str], None]):
        self.waiting = deque(run for run in runs if run.next_words())
        self.active: dict[int, _Task] = {}
        self.failed: list[Run] = []
        self._jobs, self._say, self._cores = jobs, say, shares_of_cores(jobs)
        self._total, self._done, self._began = len(self.waiting), 0, time.monotonic()

    def start_more(self) -> None:
        for slot in range(self._jobs):
            if slot not in self.active and self.waiting:
                self.active[slot] = _start(self.waiting.popleft(), self._cores[slot] if self._cores else None)

    def pass_on(self, came: Sequence[int]) -> None:
        """Asks each command once to save and stop; a second signal kills it."""
        urgent = sum(number in (signal.SIGTERM, signal.SIGINT) for number in came) > 1
        for task in self.active.values():
            if urgent:
                task.process.kill()
            elif came and not task.asked_to_stop:
                task.asked_to_stop = True
                task.process.terminate()

    def settle(self, *, stopping: bool) -> None:
        """Takes note of the commands that have ended."""
        for slot in [slot for slot, task in self.active.items() if task.process.poll() is not None]:
            task = self.active.pop(slot)
            problem = _problem(task)
            if problem and stopping:
                self._say(f"{task.run}: stopped, goes on at the next call")
            elif problem:
                self.failed.append(task.run)
                self._say(f"{task.run}: {problem}")
            elif task.run.next_words():
                self.waiting.appendleft(task.run)
            else:
                self._done += 1
                left = self._total - self._done - len(self.failed)
                minutes = left * (time.monotonic() - self._began) / self._done / 60
                self._say(f"{task.run}: done, {self._done} of {self._total}, about {minutes:.0f} min left")


def _start(run: Run, cores: Sequence[int] | None) -> _Task:
    """The run's next command, in a process that ends with this one."""
    run.arm.begin()
    words = run.next_words()
    with writing(run.log), run.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / words[0]), *words[1:]],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is for this process, which passes it on once
            preexec_fn=functools.partial(_begin, cores),
        )  # fmt: skip
        return _Task(run, words, process, start=log.tell())


def _begin(cores: Sequence[int] | None) -> None:
    die_with_parent()
    if cores:
        os.sched_setaffinity(0, cores)


def _problem(task: _Task) -> str | None:
    """Why a command that ended did not do its work, in one line; None: it did."""
    code = task.process.returncode
    try:
        output = task.run.log.read_bytes()[task.start :].decode(errors="replace")
        if code == 0 and task.words[0] == "eval.py":
            task.run.keep_answer(output)
    except (UserError, OSError) as error:
        return str(error)
    if code == 0 and task.run.next_words() != task.words:
        return None
    lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{task.words[0]} ended with code {code}: {(errors or lines)[-1]}; all of it is in {task.run.log}"


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Within it, signals that ask to stop are only collected; one that is ignored (nohup) stays so."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in _SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
