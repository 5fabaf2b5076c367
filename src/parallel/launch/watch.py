# SPDX-License-Identifier: Apache-2.0
"""Watches the workers of one attempt: how each ended, whether it still beats, and whether all get on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ...common import heartbeat
from ...common.errors import UserError
from ...common.heartbeat import Beat
from .checks import answers
from .start import Plan, kill_all_children

LOOK = 0.2  # seconds between two looks
USER_ERROR = 2  # exit codes: of the doors, and as `timeout` and shells have them
TIMED_OUT = 124
KILLED = 128 + signal.SIGKILL
STOPPED = 128 + signal.SIGTERM
SAME_ERROR = 5  # seconds for the other workers to report the error that one has reported
MSRUN_END = 30  # seconds for msrun to end after its workers
UNREACHABLE = 20  # seconds without an answer, after which the first server's scheduler counts as lost
LOST_WORKER = 180  # seconds for MindSpore's scheduler to notice a lost worker; it takes about 40
SCHEDULER = "scheduler"
LAST_LINES = 15  # of a failed worker's log


@dataclass(frozen=True)
class Limits:
    """Seconds: `hang` without a sign of life, `progress` without a batch (0: no limit for either), and
    `stop` without a batch after a request to stop."""

    hang: float = 600
    progress: float = 3600
    stop: float = 300


@dataclass(frozen=True)
class End:
    """How a worker ended: its code as of `subprocess` (-9: by signal 9), and when, on this server's clock."""

    code: int
    at: float

    @property
    def exit_code(self) -> int:
        """As of shells; a signal to stop that ended a worker without anything to save is 143 as well."""
        if -self.code in (signal.SIGHUP, signal.SIGUSR1):
            return STOPPED
        return self.code if self.code >= 0 else 128 - self.code


class Failure(Exception):
    """What ended an attempt, in one line, and the exit code that says so."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Tail:
    """Copies the lines that are appended to a file to standard output.

    Without the two that MindSpore writes when processes join: they have waited in a buffer of its own, and
    would follow the line of JSON that a door ends with.
    """

    NOISE = b"[INFO] DISTRIBUTED("

    def __init__(self, path: Path):
        self.path, self.position, self.read = path, 0, True

    def copy(self, *, last: bool = False) -> None:
        """Copies the whole lines since the last call; what follows them too if this is the last one."""
        if not self.read or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            text = file.read()
        text = text if last else text[: text.rfind(b"\n") + 1]
        self.position += len(text)
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith(self.NOISE)]
        try:
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
        except OSError:  # nobody reads any more; the log has it all
            self.read = False


def let_the_others_end(plan: Plan, stopping: Callable[[], int]) -> None:
    """Before a restart: the other servers must not take the new scheduler for the old one, nor the reverse.

    The first server waits until the others have missed it, and they until its scheduler is gone.
    """
    if plan.nodes == 1 or plan.rank_table:
        return
    until = time.monotonic() + (LOST_WORKER if plan.node_rank else UNREACHABLE + MSRUN_END)
    while time.monotonic() < until and not stopping():
        if plan.node_rank and not answers(plan.master_address, plan.master_port):
            return
        time.sleep(1)


class Attempt:
    """One start of all workers of this server.

    Args:
        plan: what to start.
        command: the door and its words, without the interpreter.
        folder: a new folder for logs.
        limits: time limits.
        stopping: how often the user has asked to stop, twice means at once; and `passed_on`, the signal.
    """

    def __init__(
        self, plan: Plan, command: list[str], folder: Path, limits: Limits, stopping: Callable[[], int]
    ):
        self.plan, self.command, self.folder = plan, command, folder
        self.limits, self.stopping = limits, stopping
        self.names = {f"rank_{rank}": rank for rank in plan.ranks()}
        self.tail = Tail(self._log(next(iter(self.names))))
        self.pids: dict[str, tuple[int, int]] = {}  # of the worker, and of worker.py that started it
        self.ends: dict[str, End] = {}
        self.told: set[str] = set()  # to stop
        self.since: dict[str, float] = {}  # when something was first seen
        self.beats: dict[str, Beat] = {}
        self.work: dict[str, float] = {}  # seconds of a core
        self.silence = dict.fromkeys(self.names, 0.0)
        self.standstill = 0.0
        self.looked = time.monotonic()
        self.reached = False  # the first server's scheduler

    def run(self) -> None:
        """Starts the workers and returns when all have ended well.

        Raises:
            Failure: one failed or hung, or the user stopped them. No process is left in any case.
            UserError: they cannot be started.
        """
        try:
            started = self._start()
            while not self._look(started):
                time.sleep(LOOK)
        finally:
            self.tail.copy(last=True)
            for pid in kill_all_children():
                print(f"error: process {pid} does not end, not even by SIGKILL", file=sys.stderr)
            self._say_if_the_disk_is_full()

    def _start(self) -> list[subprocess.Popen]:
        try:
            for name in ("state", "heartbeat"):
                (self.folder / name).mkdir(parents=True)
            return self.plan.start(self.command, self.folder)
        except OSError as error:
            raise UserError(
                f"cannot start the workers ({error.strerror}: {error.filename}); free space or set LOG_DIR"
            ) from error

    def _look(self, started: list[subprocess.Popen]) -> bool:
        """Whether all is over and well."""
        self.tail.copy()
        over = None not in [process.poll() for process in started]
        self._read_states()
        running = [name for name in self.names if name not in self.ends]
        failed = [name for name, end in self.ends.items() if end.code and (running or name in self.names)]
        if not running and not failed:
            # msrun waits for its scheduler, and that for the other servers.
            return over or self._lasts("the end", MSRUN_END if self.plan.nodes == 1 else self.limits.hang)
        if self.stopping():
            self._stop(running)
        if failed:
            self._give_up(min(failed, key=lambda name: self.ends[name].at), running)
        if over and self._lasts("nothing runs", SAME_ERROR):
            what = "its starter" if self._log(running[0]).exists() else "msrun"
            log = self._log(running[0]) if self._log(running[0]).exists() else self.folder / "msrun.log"
            raise Failure(
                f"rank {self.names[running[0]]} did not start: {what} ended with exit code "
                f"{started[0].returncode}; log: {log}", 1,
            )  # fmt: skip
        self._check_beats(running)
        self._check_master()
        return False

    def _read_states(self) -> None:
        """What each worker.py wrote; one that is gone without having written an end was killed."""
        for name in (*self.names, SCHEDULER):
            if name in self.ends:
                continue
            gone = name in self.pids and not psutil.pid_exists(self.pids[name][1])
            with contextlib.suppress(FileNotFoundError, ValueError):  # ValueError: not written yet
                pid, starter, code, at = (self.folder / "state" / name).read_text().split()
                self.pids[name] = int(pid), int(starter)
                self.ends[name] = End(int(code), float(at))
            if gone and name not in self.ends:
                self.ends[name] = End(-signal.SIGKILL, time.monotonic())

    def _say_if_the_disk_is_full(self) -> None:
        """A worker's own lines cannot say that they could not be written."""
        probe = self.folder / "space"
        try:
            probe.write_bytes(bytes(1 << 16))
        except OSError as error:
            print(f"error: the logs in {self.folder} are cut short ({error.strerror}); free space there",
                  file=sys.stderr, flush=True)  # fmt: skip
        with contextlib.suppress(OSError):
            probe.unlink()

    def _lasts(self, what: str, seconds: float) -> bool:
        """Whether this has been asked for so long."""
        return time.monotonic() - self.since.setdefault(what, time.monotonic()) >= seconds

    def _stop(self, running: list[str]) -> None:
        """Passes the request on to the workers, once to each; raises Failure if they do not get on with it.

        A batch in hand may take long, and what follows it is the saving: the time counts from the last batch.
        """
        for name in running:
            if name in self.pids and name not in self.told:
                self.told.add(name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[name][0], self.stopping.passed_on)
        if running and self.stopping() > 1:
            raise self._killed(running[0], "when a second signal came")
        if running and self._is_late("stopping"):
            raise self._killed(running[0], self._late_after("the signal"))

    def _is_late(self, what: str) -> bool:
        return self._lasts(what, self.limits.stop) and self.standstill >= self.limits.stop

    def _late_after(self, what: str) -> str:
        return f"{self.limits.stop:g} s (STOP_TIMEOUT) after its last batch and after {what}"

    def _killed(self, name: str, when: str) -> Failure:
        return Failure(f"{self._who(name)} was killed: it had not stopped {when}", KILLED)

    def _give_up(self, name: str, running: list[str]) -> None:
        """Raises Failure for the worker that failed first, once the others had time to do what it did."""
        end = self.ends[name]
        lines = self._log(name).read_text(errors="replace").splitlines() if self._log(name).exists() else []
        if name == SCHEDULER:
            lost = re.search(r"worker (\d+) is the first one timed out", "\n".join(lines))
            what = f"rank {lost[1]} is lost: nothing was heard of it" if lost else f"{self._who(name)} ended"
            raise Failure(f"{what}; logs: its own, and {self._log(name)}", TIMED_OUT if lost else 1)
        if end.exit_code == STOPPED:
            if not running:
                raise Failure("stopped", STOPPED)
            if self._is_late("others stopped"):
                raise self._killed(running[0], self._late_after(f"the end of {self._who(name)}"))
            return
        if end.exit_code == USER_ERROR and running and not self._lasts("failing", SAME_ERROR):
            return
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if end.exit_code == USER_ERROR and said:
            raise Failure(f"{self._who(name)}: {said[-1]}", USER_ERROR)
        if lines and self._log(name) != self.tail.path:
            print("\n".join([f"the last lines of {self._log(name)}:", *lines[-LAST_LINES:]]), file=sys.stderr)
        how = (
            f"was killed by {signal.Signals(-end.code).name}"
            if end.code < 0
            else f"ended with exit code {end.code}"
        )
        raise Failure(f"{self._who(name)} {how}; log: {self._log(name)}", end.exit_code)

    def _check_beats(self, running: list[str]) -> None:
        """Raises Failure if a worker gives no sign of life, or none gets on."""
        # Long looks are those of a machine that slept: the workers did too.
        passed = min(time.monotonic() - self.looked, 5 * LOOK)
        self.looked = time.monotonic()
        self.standstill += passed
        for name in running:
            self.silence[name] += passed
            beat, before = heartbeat.read(self.folder / "heartbeat", self.names[name]), self.beats.get(name)
            if beat != before or self._works(name):
                self.silence[name] = 0
            if before and beat.progress != before.progress:
                self.standstill = 0
            self.beats[name] = beat
        silent = max(running, key=self.silence.get)
        if 0 < self.limits.hang < self.silence[silent]:
            raise Failure(
                f"{self._who(silent)} hangs: no sign of life for {self.limits.hang:g} s (HANG_TIMEOUT); "
                f"log: {self._log(silent)}", TIMED_OUT,
            )  # fmt: skip
        if 0 < self.limits.progress < self.standstill:
            raise Failure(self._standstill(running), TIMED_OUT)

    def _standstill(self, running: list[str]) -> str:
        batches = {name: self.beats[name].progress for name in running}
        last, most = min(running, key=batches.get), max(batches.values())
        how_far = "none before it" if not most else f"{most} before it"
        if batches[last] < most:
            how_far = (
                f"furthest behind is {self._who(last)} with {batches[last]} batches, the first has {most}"
            )
        return (
            f"no batch for {self.limits.progress:g} s (PROGRESS_TIMEOUT), {how_far}; "
            f"for work with longer steps set a larger one, or 0; log: {self._log(last)}"
        )

    def _works(self, name: str) -> bool:
        """Whether the worker has used a core since the last look.

        Python's threads, and with them the beat, wait while MindSpore is imported or compiles a graph.
        """
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):
            times = psutil.Process(self.pids[name][0]).cpu_times()
            seconds = times.user + times.system
            before, self.work[name] = self.work.get(name, 0.0), seconds
            return seconds > before
        return False

    def _check_master(self) -> None:
        """Raises Failure if the first server's scheduler was there and is no more.

        That server's launcher ends it when a rank fails; MindSpore's workers elsewhere would wait on.
        """
        plan = self.plan
        if plan.rank_table or not plan.node_rank or not self._lasts("a look at the master", 2):
            return
        self.since.pop("a look at the master", None)
        if answers(plan.master_address, plan.master_port):
            self.reached = True
            self.since.pop("no master", None)
        elif self.reached and self._lasts("no master", UNREACHABLE):
            raise Failure(
                f"the server of NODE_RANK 0 is lost: port {plan.master_port} of {plan.master_address} "
                f"has not answered for {UNREACHABLE} s; its launcher says why", 1,
            )  # fmt: skip

    def _who(self, name: str) -> str:
        who = f"rank {self.names[name]}" if name in self.names else "msrun's scheduler"
        return f"{who} (pid {self.pids[name][0]})" if name in self.pids else who

    def _log(self, name: str) -> Path:
        return self.folder / (f"worker_{self.names[name]}.log" if name in self.names else "scheduler.log")
