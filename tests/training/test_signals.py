# SPDX-License-Identifier: Apache-2.0
"""The first signal is a request, the second one the end; ranks agree; afterwards all is as before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.training import signals
from src.training.signals import AgreedStop, StopRequest

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_only_sets_the_request(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopRequest() as stop:
        assert not stop.came
        os.kill(os.getpid(), number)
        assert stop.came
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_exception():
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_under_nohup_a_closed_terminal_is_no_request():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.came
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_terminal_that_closes_twice_or_a_scheduler_that_repeats_itself_kills_nothing(number):
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert stop.came


def test_a_second_signal_ends_the_process():
    code = (
        "import os, signal\n"
        "from src.training.signals import StopRequest\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    if not os.fork():\n"
        "        with StopRequest() as stop:\n"
        "            os.kill(os.getpid(), number)\n"
        "            assert stop.came\n"
        "            os.kill(os.getpid(), number)\n"
        "            os._exit(0)\n"
        "    print(number, os.WTERMSIG(os.wait()[1]))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "".join(f"{number:d} {number:d}\n" for number in (signal.SIGTERM, signal.SIGINT))


class Ranks:
    """Ranks that make updates in lockstep, each with a clock of its own; they only meet in sums."""

    def __init__(self, monkeypatch, *, seconds, most):
        self.seconds, self.now, self.sums, self.turn = seconds, [0.0] * len(seconds), 0, 0
        monkeypatch.setattr(signals.time, "monotonic", lambda: self.now[self.turn])
        monkeypatch.setattr(signals, "sum_over_ranks", self._sum)
        self.requests = [StopRequest() for _ in seconds]
        self.stops = [AgreedStop(request, size=len(seconds), most=most) for request in self.requests]

    def _sum(self, vector, *, size):
        self.vectors.append(vector)
        return self.total

    def update(self):
        """Each rank's answer after one more update, and whether they asked each other."""
        self.now = [now + seconds for now, seconds in zip(self.now, self.seconds)]
        self.total = np.zeros(2)
        self.vectors = []
        for rank, stop in enumerate(self.stops):  # what each would say
            self.turn, state = rank, dict(vars(stop))
            stop()
            vars(stop).update(state)
        asked, self.total = bool(self.vectors), np.sum(self.vectors, axis=0)
        assert len(self.vectors) in (0, len(self.stops)), "one asks and another does not: they wait for ever"
        answers = []
        for rank, stop in enumerate(self.stops):
            self.turn = rank
            answers.append(stop())
        return answers, asked


def test_slow_updates_are_asked_about_each_time(monkeypatch):
    """Whatever `log_every` is: a step of 8 seconds, and the launcher's patience of 120 (E-B6)."""
    ranks = Ranks(monkeypatch, seconds=[8.0, 7.0], most=1000)
    assert all(ranks.update() == ([False, False], True) for _ in range(5))
    ranks.requests[1].came = True
    assert ranks.update() == ([True, True], True)


def test_fast_updates_are_asked_about_once_a_second_on_all_ranks_alike(monkeypatch):
    ranks = Ranks(monkeypatch, seconds=[0.012, 0.008, 0.01], most=1000)
    asked = [ranks.update()[1] for _ in range(500)]
    assert asked[0] and 5 <= sum(asked) <= 6
    ranks.requests[0].came = True
    answers = [ranks.update()[0] for _ in range(100)]
    assert [True] * 3 in answers and all(len(set(answer)) == 1 for answer in answers)


def test_no_more_updates_than_between_two_records_pass_without_a_question(monkeypatch):
    ranks = Ranks(monkeypatch, seconds=[1e-5, 1e-5], most=20)
    asked = [ranks.update()[1] for _ in range(101)]
    assert [n for n, a in enumerate(asked) if a] == [0, 20, 40, 60, 80, 100]


def test_alone_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(signals, "sum_over_ranks", None)
    request = StopRequest()
    stop = AgreedStop(request, size=1, most=5)
    assert not stop()
    request.came = True
    assert stop()
