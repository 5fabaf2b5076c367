# SPDX-License-Identifier: Apache-2.0
"""The comparison of optimizers from runs that are written by hand: rates, seconds, bars, and divergence."""

import json
import math

import pytest

from benchmarks import optimizers, runs
from benchmarks.optimizers import RATES, _beyond, common_top1, figures, reached, run, seconds_an_image, tune
from src.training.soundness import Row, Soundness, Unsound


def test_the_search_goes_on_where_the_best_rate_is_at_an_end(monkeypatch):
    """SGD is best at 1.6, two further on; the others try as many, to the side that is better."""
    best = {"sgd": 1.6, "thor": 0.2, "muon": 0.2}
    monkeypatch.setattr(optimizers, "RATES", dict.fromkeys(best, ("lr", (0.1, 0.2, 0.4))))
    calls = []

    def trial(name, rate, seed):
        calls.append((name, rate, seed))
        return {"top1": 90 - abs(math.log2(rate / best[name])) - (rate > best[name]) / 10}

    tried = tune(trial)
    assert list(tried["sgd"]) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert {len(row) for row in tried.values()} == {6} and len(calls) == len(set(calls)) == 18
    assert {name: max(row, key=row.get) for name, row in tried.items()} == best


@pytest.mark.parametrize(
    ("top1", "anyway", "rate"),
    [
        ((1, 2, 3), False, 0.8), ((3, 2, 1), False, 0.05), ((1, 3, 2), False, 0),
        ((1, 3, 2), True, 0.8), ((2, 3, 1), True, 0.05), ((0, 0, 0), False, 0.05),
    ],
)  # fmt: skip
def test_the_next_rate(top1, anyway, rate):
    assert _beyond(dict(zip((0.1, 0.2, 0.4), top1, strict=True)), anyway=anyway) == rate


def a_run(top1, steps, ms):
    return {
        "top1": top1, "steps": steps, "seconds": steps * ms / 1000, "ms_a_step": ms,
        "evaluations": [(steps // 2, top1 - 5), (steps, top1)],
    }  # fmt: skip


def test_when_an_accuracy_was_reached():
    assert reached(a_run(80.0, 100, 50.0), 75.0) == {"steps": 50, "seconds": 2.5}
    assert reached(a_run(80.0, 100, 50.0), 75.1) == {"steps": 100, "seconds": 5.0}
    assert common_top1([a_run(80.0, 100, 50.0), a_run(76.9, 100, 50.0)]) == 76


@pytest.mark.parametrize(("top1", "ms", "met"), [(81.0, 130.0, (True, True)), (79.0, 150.0, (False, False))])
def test_the_bars(top1, ms, met):
    results = {
        "sgd": [a_run(80.0, 100, 100.0)] * 3, "thor": [a_run(82.0, 100, ms)] * 3,
        "thor, shorter": [a_run(top1, 75, ms)] * 3,
    }  # fmt: skip
    found = figures(results)
    assert (found["target"], found["thor_over_sgd"]["steps"]) == (80, 0.75)
    assert found["thor_over_sgd"]["cost_of_a_step"]["median"] == ms / 100
    assert found["bars_met"] == {"steps": met[0], "cost": met[1]}
    assert found["summary"]["sgd"]["seconds"]["mean"] == 10
    assert found["common_top1"] == (79 if top1 < 80 else 80)
    assert found["to_common_top1"]["thor, shorter"]["steps"]["mean"] == 75


def test_records_that_have_a_compilation_do_not_count():
    """Two behind the start and two behind a resume at image 500; the last one is of fewer batches."""
    speeds = {100: 1, 200: 50, 300: 100, 400: 100, 500: 100, 600: 2, 700: 60, 800: 100, 850: 50}
    rows = [{"images": images, "images_per_second": speed} for images, speed in speeds.items()]
    rows.insert(5, {"images": 500, "eval_top1": 50.0})
    found = seconds_an_image(rows, [{"images": 0}, {"images": 500}])
    assert found == pytest.approx((4 * 1 + 1) / 450)


def test_a_rate_that_diverges_is_tried_once_and_has_no_accuracy(tmp_path, monkeypatch):
    calls = []

    def train(config, folder, **keys):
        calls.append(config)
        raise runs.Diverged("error: the loss is nan at batch 3")

    monkeypatch.setattr(optimizers, "train", train)
    for _ in range(2):
        found = run("muon", 0.2, 0, folder=tmp_path, data=tmp_path)
        assert (found["top1"], found["diverged"]) == (0, "error: the loss is nan at batch 3")
    assert calls == ["resnet9/cpu/optimizers/muon_resnet20.yaml"]
    (kept,) = tmp_path.rglob("*.json")
    assert json.loads(kept.read_text()) == found and set(RATES) == {"sgd", "thor", "muon"}


@pytest.mark.parametrize(("loss", "overflow"), [(math.nan, 0), (1.0, 1)])
def test_what_a_training_says_that_cannot_go_on_is_recognised(loss, overflow):
    soundness = Soundness(max_nonfinite=2, updates=4, accumulate=1, dynamic=False)
    with pytest.raises(Unsound) as error:
        soundness.check([Row(step, loss, 1.0, overflow, 1.0) for step in (1, 2, 3)])
    assert runs.DIVERGED.match(f"error: {error.value}")


def test_a_training_that_cannot_go_on_is_told_from_one_that_failed(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    script = "import sys; print('a line', file=sys.stderr); sys.exit({!r})"
    (tmp_path / "train.py").write_text(script.format("error: the loss is inf at batch 7, 1 batches in a row"))
    with pytest.raises(runs.Diverged, match="the loss is inf at batch 7"):
        runs.train("x.yaml", tmp_path / "run")
    (tmp_path / "train.py").write_text(script.format("error: the disk is full"))
    with pytest.raises(SystemExit, match="training failed"):
        runs.train("x.yaml", tmp_path / "run")
    assert capfd.readouterr().err.count("a line") == 2
