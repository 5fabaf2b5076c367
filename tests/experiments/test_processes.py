# SPDX-License-Identifier: Apache-2.0
"""Runs are worked off in order, on their cores, once; what fails or is stopped is told and goes on later."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.common.files import LOCK
from src.common.lock import locked
from src.experiments import processes
from src.tools import ablate, summary
from src.training.records import read_metrics
from tests.experiments.fake_runs import fake_run
from tests.helpers.doors import ROOT, call_main, error_of, last_json

BOUND = 240  # seconds; idle machines need 15


class Closed(io.RawIOBase):
    """What stderr is when its terminal is gone."""

    def writable(self):
        return True

    def write(self, data):
        raise OSError(5, "Input/output error")


@pytest.fixture
def doors(tmp_path, monkeypatch):
    """Stub doors; doors() -> their calls so far."""
    folder = tmp_path / "doors"
    folder.mkdir()
    for name in ("train.py", "eval.py"):
        shutil.copy(Path(__file__).with_name("stub_door.py"), folder / name)
    monkeypatch.setattr(processes, "ROOT", folder)
    monkeypatch.setattr(processes, "_POLL", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    calls = folder / "calls"
    return lambda: [json.loads(line) for line in calls.open()] if calls.exists() else []


def _work_off(runs, *, jobs=1):
    lines = []
    return processes.work_off(runs, jobs=jobs, say=lines.append), lines


def _runs(arms, seeds):
    return [arm.run(seed) for seed in range(seeds) for arm in arms]


def test_finished_runs_are_passed_over_and_the_seed_is_outermost(arms, doors):
    made = arms(views=["flip"], one={}, two={})
    fake_run(made[0].run(0).folder, views={"flip": 61.0})
    outcome, lines = _work_off(_runs(made, 2))
    assert outcome == processes.Outcome([], False)
    steps = [call[:3] for call in doors()]
    todo = [("two", "seed_0"), ("one", "seed_1"), ("two", "seed_1")]
    assert steps == [[door, *run] for run in todo for door in ("train", "eval")]
    assert [line.partition(",")[0] for line in lines] == [f"{n} seed {s[-1]}: done" for n, s in todo]
    assert all((arm.folder / "recipe.yaml").is_file() for arm in made)
    assert _work_off(_runs(made, 2)) == (outcome, []) and len(doors()) == 6
    assert json.loads(made[1].run(1).views_file("flip").read_text()) == {"views": "flip", "top1": 61.5}


def test_each_of_several_jobs_has_its_share_of_the_cores(arms, doors, monkeypatch):
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(processes, "shares_of_cores", lambda jobs: [cores[:1], cores[-1:]])
    made = arms(one={}, two={}, three={})
    assert not _work_off(_runs(made, 1), jobs=2)[0].failed
    shares = [call[-1] for call in doors()]
    assert len(shares) == 3 and {tuple(share) for share in shares} == {(cores[0],), (cores[-1],)}


def test_a_failure_is_one_line_and_the_others_go_on(arms, doors):
    made = arms(broken={}, mute={}, one={})
    outcome, lines = _work_off(_runs(made, 1))
    assert [run.arm.name for run in outcome.failed] == ["broken", "mute"] and len(lines) == 3
    log = made[0].folder / "seed_0.log"
    problem = "train.py ended with code 2: the loss is nan at batch 1; lower lr"
    assert lines[0] == f"broken seed 0: {problem}; all of it is in {log}"
    assert lines[1].startswith("mute seed 0: train.py ended with code 0: no output; ")
    assert made[2].run(0).is_trained


def _stopped_when_begun(made, *, signals=1):
    """What came of a call that is sent signals once its first run has begun."""

    def stop():
        while not (made[0].run(0).folder / "config.yaml").exists():
            time.sleep(0.01)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    thread = threading.Thread(target=stop)
    thread.start()
    found = _work_off(_runs(made, 1))
    thread.join()
    return found


def test_a_second_signal_kills_a_training_that_does_not_stop(arms, doors):
    began = time.monotonic()
    outcome, lines = _stopped_when_begun(arms(deaf={}), signals=2)
    assert outcome == processes.Outcome([], True) and time.monotonic() - began < 30
    assert lines == ["deaf seed 0: stopped, goes on at the next call"]


def test_a_closed_terminal_stops_no_training(arms, doors, tmp_path, monkeypatch):
    closed = io.TextIOWrapper(io.BufferedWriter(Closed()), write_through=True)
    monkeypatch.setattr(sys, "stderr", closed)
    (arm,) = arms(one={})
    assert ablate.main([str(arm.path), "--seeds", "2", "--output_path", str(tmp_path / "out")]) == 0
    assert len(arm.finished()) == 2


def test_a_signal_stops_the_trainings_which_then_go_on(arms, doors):
    made = arms(slow={}, one={})
    outcome, lines = _stopped_when_begun(made)
    assert outcome == processes.Outcome([], True) and lines == [
        "slow seed 0: stopped, goes on at the next call"
    ]
    assert not made[1].folder.exists()
    outcome, lines = _work_off(_runs(made, 1))
    assert not outcome.stopped and len(lines) == 2
    assert [call[1:4] for call in doors()] == [
        ["slow", "seed_0", False], ["slow", "seed_0", True], ["one", "seed_0", False]
    ]  # fmt: skip


def test_the_jobs_must_have_cores_and_doors(doors, monkeypatch):
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    processes.check_jobs(2)
    for jobs in (0, 3):
        with pytest.raises(UserError, match=f"jobs: {jobs} given, allowed: a whole number from 1 to 2"):
            processes.check_jobs(jobs)
    (processes.ROOT / "train.py").unlink()
    with pytest.raises(UserError, match=r"train\.py is not there; call this in a clone"):
        processes.check_jobs(1)


def test_the_tool_ends_with_2_after_a_failure_and_says_what_there_is(arms, doors, tmp_path):
    made = arms(one={}, broken={})
    paths, out = [arm.path for arm in made], tmp_path / "out"
    ended = call_main(ablate.main, *paths, "--seeds", 2, output_path=out)
    assert ended.returncode == 2 and ended.stderr.count("broken seed") == 2 and len(doors()) == 4
    facts = last_json(call_main(ablate.main, *paths, "--table", output_path=out, name="again"))
    assert (
        facts
        == json.loads((out / "again.json").read_text())
        == json.loads((out / "ablation.json").read_text())
    )
    assert facts["without_runs"] == ["broken"] and facts["rows"][0]["n"] == 2
    assert (out / "again.md").read_text() in ended.stdout and (out / "again.png").stat().st_size > 10_000
    assert len(doors()) == 4  # a table trains nothing
    with locked(out / LOCK):
        message = error_of(call_main(ablate.main, *paths, output_path=out))
    assert message == (
        f"error: output_path: {out} is in use by process {os.getpid()}; wait for it, or choose another"
    )
    paths[0].write_text("model: resnet9\nlr: 0.1\n")
    assert "lr: 0.1 given for one, and 0.4 when" in error_of(call_main(ablate.main, *paths, output_path=out))


def test_the_compute_is_that_of_the_run_whatever_its_recipe_has_become(arms, tmp_path, capsys):
    """Of MultiGrain, whose epoch has each image several times, and with another length than the recipe's."""
    keys = {
        "model": "multigrain_resnet18", "block_units": "[1, 1, 1, 1]", "widths": "[2, 2, 2, 2]",
        "image_size": 32, "batch_size": 20,
    }  # fmt: skip
    (arm,) = arms(one=keys)
    fake_run(arm.run(0).folder, keys={**keys, "epochs": 2.0})
    facts = last_json(call_main(ablate.main, arm.path, "--table", output_path=tmp_path / "out"))
    sizes = {"images": 100, "test_images": 200, "num_classes": 3, "epochs": 2.0}
    expected = last_json(call_main(summary.main, "--json", config_path=arm.path, **sizes))["compute"]
    assert expected["updates"] == 20 and facts["rows"][0]["pflop"] == expected["pflop"]


def test_a_killed_ablation_continues_and_repeats_no_finished_run(arms, data_path, tmp_path):
    """The real doors: SIGKILL to the tool amid its second run."""
    keys = {"widths": "[2, 2, 2, 2]", "batch_size": 20, "warmup_epochs": 1, "lr": 0.1, "train_steps": 1000}
    (arm,) = arms(one={**keys, "save_every": 1, "eval_every": 1000, "log_every": 1})
    fake_run(arm.run(0).folder)
    before = (arm.run(0).folder / "summary.json").stat().st_mtime_ns
    run, out = arm.run(1).folder, tmp_path / "out"
    words = [arm.path, "--seeds", 2, "--output_path", out, "--data_path", data_path]
    command = [sys.executable, "-m", "src.tools.ablate", *map(str, words)]
    tool, until = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL), time.monotonic() + BOUND
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < until and tool.poll() is None
        time.sleep(0.01)
    tool.kill()
    tool.wait()
    assert not (run / "summary.json").exists()
    # The test need not wait for all of it: as if train.py had been told of another end since.
    end = max(record["step"] for record in read_metrics(run / "metrics.jsonl")) + 20
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("train_steps: 1000", f"train_steps: {end}"))
    ended = call_main(ablate.main, *words)
    assert ended.returncode == 0, ended.stderr
    facts = last_json(ended)
    assert facts["rows"][0]["seeds"] == [0, 1]
    assert (arm.run(0).folder / "summary.json").stat().st_mtime_ns == before
    log = (run / "train.log").read_text()
    assert log.count("continuing from") == 1
    assert json.loads((run / "summary.json").read_text())["updates"] == end
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record]
    assert steps == list(range(1, end + 1))
