# SPDX-License-Identifier: Apache-2.0
"""What the launchers of several servers notice of each other."""

import re

import pytest

from src.parallel.launch import watch
from src.parallel.launch.start import Plan
from src.parallel.launch.watch import Attempt, End, Failure, Limits, let_the_others_end

SECOND = Plan(workers=2, nodes=2, node_rank=1, master_address="192.0.2.1", master_port=8118)
FIRST = Plan(workers=2, nodes=2, node_rank=0, master_address="192.0.2.1", master_port=8118)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by `sleep` only."""
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def attempt(plan, folder):
    return Attempt(plan, ["door.py"], folder, Limits(), lambda: 0)


def test_a_lost_first_server_is_noticed_by_the_second(clock, monkeypatch, tmp_path):
    there = [False]
    monkeypatch.setattr(watch, "answers", lambda address, port: there[0])
    second = attempt(SECOND, tmp_path)

    def look(seconds):
        for _ in range(seconds):
            clock[0] += 1
            second._check_master()

    look(100)  # not there yet: the workers' own time for joining runs
    there[0] = True
    look(10)
    there[0] = False
    look(15)
    there[0] = True
    look(10)
    there[0] = False
    with pytest.raises(Failure, match=r"port 8118 of 192.0.2.1 has not answered for 20 s"):
        look(40)


def test_the_first_server_does_not_look(clock, monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "answers", None)
    first = attempt(FIRST, tmp_path)
    for _ in range(10):
        clock[0] += 10
        first._check_master()


def test_a_rank_that_the_scheduler_lost_is_named(tmp_path):
    first = attempt(FIRST, tmp_path)
    first.pids["scheduler"] = (7, 6)
    first.ends["scheduler"] = End(2, 1.0)
    with pytest.raises(Failure, match=r"msrun's scheduler \(pid 7\) ended; logs: .*scheduler.log"):
        first._give_up("scheduler", ["rank_0", "rank_1"])
    (tmp_path / "scheduler.log").write_text(
        "error: rank 0 of 4 cannot join the others (Timed out node list is: {3}, worker 3 is the first one "
        "timed out, please check its log.)\n"
    )
    with pytest.raises(Failure, match=re.escape("rank 3 is lost: nothing was heard of it")) as caught:
        first._give_up("scheduler", ["rank_0", "rank_1"])
    assert caught.value.exit_code == watch.TIMED_OUT


def test_before_a_restart_the_others_have_time_to_notice(clock, monkeypatch):
    looks = iter([True, True, False])
    monkeypatch.setattr(watch, "answers", lambda address, port: next(looks))
    let_the_others_end(SECOND, lambda: 0)  # until the old scheduler is gone
    assert clock[0] == 102
    let_the_others_end(FIRST, lambda: 0)  # until the others have missed it
    assert clock[0] - 102 > watch.UNREACHABLE
    before = clock[0]
    let_the_others_end(FIRST, lambda: 1)
    let_the_others_end(Plan(workers=2), lambda: 0)
    let_the_others_end(Plan(workers=2, nodes=2, rank_table="table.json"), lambda: 0)
    assert clock[0] == before
