# SPDX-License-Identifier: Apache-2.0
"""A signal as a request to save and stop, which all ranks see after the same update."""

import signal
import time
from types import FrameType

import numpy as np

from ..parallel.collective import sum_over_ranks

# How long several ranks work before they ask each other again whether one is to stop, seconds.
ASK_EVERY = 1.0


class StopRequest:
    """Within the block, SIGTERM, SIGINT, SIGHUP and SIGUSR1 only set `came`.

    SIGHUP comes when a terminal is closed, and stays ignored under nohup. SIGUSR1 is what Slurm sends ahead
    of the time limit (--signal=USR1@300). A second SIGTERM or SIGINT ends the process at once; a closing
    terminal may send SIGHUP twice.

    While a graph runs, MindSpore answers a SIGINT by sending the process a SIGTERM, so the two cannot be told
    apart, and are treated alike.

    Attributes:
        came: whether a signal came.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class AgreedStop:
    """Whether all ranks stop after this update: one alone would leave the others waiting in the next one.

    An answer waits for the device, so several ranks ask each other once in ASK_EVERY seconds of work. They
    all reckon by the same sum of their times, and ask after the same update.

    Args:
        request: of this process.
        size: number of ranks.
        most: updates without a question, however fast they are.
    """

    def __init__(self, request: StopRequest, *, size: int, most: int):
        self._request, self._size, self._most = request, size, most
        self._since, self._updates, self._until = time.monotonic(), 0, 1

    def __call__(self) -> bool:
        """Asks, if it is time to; called on every rank after each update."""
        if self._size == 1:
            return self._request.came
        self._updates += 1
        if self._updates < self._until:
            return False
        mine = np.array([float(self._request.came), time.monotonic() - self._since])
        stops, seconds = sum_over_ranks(mine, size=self._size)
        an_update = seconds / self._size / self._updates
        self._until = int(np.clip(ASK_EVERY / max(an_update, 1e-9), 1, self._most))
        self._since, self._updates = time.monotonic(), 0
        return stops > 0


class Interrupted(Exception):
    """A signal ended training; the message says whether the state is saved."""

    exit_code = 128 + signal.SIGTERM
