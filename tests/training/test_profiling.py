# SPDX-License-Identifier: Apache-2.0
"""--profile: ten operators with sensible times, the same training with and without it, tables of a card."""

import contextlib
import json

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.training import profiling
from src.training.profiling import Operator, read_operators, traced

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {profile: root / str(profile) for profile in (False, True)}


def test_the_table_has_ten_operators_and_the_training_is_the_same(start, run_dirs, quartet_log):
    for profile, run_dir in run_dirs.items():
        start(run_dir, profile=profile, profile_steps=4, eval_every=2.0)
    facts = json.loads((run_dirs[True] / "profile" / "operators.json").read_text())
    operators = [Operator(**row) for row in facts["operators"]]
    assert facts["steps"] == 4 and facts["step_ms"] > 0
    assert all(row.ms > 0 and row.share > 0 for row in operators)
    assert sum(row.share for row in operators) == pytest.approx(100)
    assert [row.ms for row in operators] == sorted((row.ms for row in operators), reverse=True)
    calls = {row.operator: row.calls for row in operators}
    assert calls["BatchNormGrad"] == 1
    assert calls.keys() & {"Conv2D", "Custom"}  # Custom: a convolution that calls oneDNN directly
    (table,) = [r.getMessage() for r in quartet_log if r.getMessage().startswith("profile of 4 steps")]
    assert [line.split()[0] for line in table.splitlines()[2:]] == [row.operator for row in operators[:10]]
    assert len(operators) > 10
    assert list((run_dirs[True] / "profile").rglob("trace_view.json"))
    assert not (run_dirs[False] / "profile").exists()
    plain, profiled = (read_checkpoint(d / "checkpoints" / "last.ckpt").arrays for d in run_dirs.values())
    assert plain.keys() == profiled.keys()
    assert all(np.array_equal(plain[name], profiled[name]) for name in plain)


class Profile:
    """In place of MindSpore's: notes what it is told."""

    calls: list

    def __init__(self, **settings):
        assert settings["start_profile"] is False

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")


@pytest.fixture
def events(monkeypatch, tmp_path):
    """What happens in the order it does, and the steps that note themselves there."""
    events = []
    monkeypatch.setattr(Profile, "calls", events, raising=False)
    monkeypatch.setattr(profiling.profiler, "profile", Profile)

    def steps(count):
        for number in range(1, count + 1):
            events.append(number)
            yield ()
        events.append("end")

    return events, lambda count: traced(steps(count), folder=tmp_path, count=2)


def test_steps_after_the_first_three_are_traced(events, quartet_log):
    happened, steps = events
    assert len(list(steps(7))) == 7
    assert happened == [1, 2, 3, "start", 4, 5, "stop", 6, 7, "end"]
    assert "has no table of operators that is known here" in quartet_log[-1].getMessage()


@pytest.mark.parametrize(("count", "traces"), [(4, 1), (3, 0), (0, 0)])
def test_a_run_that_ends_before(events, quartet_log, count, traces):
    happened, steps = events
    assert len(list(steps(count))) == count
    assert [event for event in happened if event in ("start", "stop")] == ["start", "stop"]
    assert ("nothing is traced" in quartet_log[-1].getMessage()) == (traces == 0)


def test_a_run_that_is_stopped_stops_the_trace(events):
    happened, steps = events
    with contextlib.closing(steps(7)) as running:
        for _ in range(4):
            next(running)
    assert happened == [1, 2, 3, "start", 4, "stop"]


def test_tables_of_a_card(tmp_path):
    output = tmp_path / "host_1_ascend_ms" / "ASCEND_PROFILER_OUTPUT"
    output.mkdir(parents=True)
    assert read_operators(tmp_path, steps=2) == []
    (output / "kernel_details.csv").write_text(
        "Step Id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us)\n"
        "1,a,Conv2D,AI_CORE,10,3000,0\n1,b,Conv2D,AI_CORE,20,1000,0\n2,c,Cast,AI_VECTOR_CORE,30,1000,0\n"
    )
    assert read_operators(tmp_path, steps=2) == [Operator("Conv2D", 1, 2, 80), Operator("Cast", 0.5, 0.5, 20)]
    (output / "op_statistic.csv").write_text(
        "Device_id,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)\n"
        "0,MatMul,AI_CORE,4,6000,1,2,3,75\n0,MatMul,MIX_AIC,2,1000,1,2,3,12.5\n0,Add,AI_CORE,2,1000,1,2,3,12.5\n"
    )
    assert read_operators(tmp_path, steps=2) == [
        Operator("MatMul", 3, 3.5, 87.5),
        Operator("Add", 1, 0.5, 12.5),
    ]
