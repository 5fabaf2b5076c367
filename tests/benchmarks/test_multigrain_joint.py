# SPDX-License-Identifier: Apache-2.0
"""What the experiment does not do twice, which rates it tries, and how its bars are asked."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import multigrain_joint, retrieval_sets, runs


@pytest.fixture
def commands(monkeypatch):
    """The words of each command that `train` starts; nothing runs."""
    started = []
    real = runs.subprocess.Popen

    def start(words, **how):
        started.append(words)
        return real(["true"], **how)

    monkeypatch.setattr(runs.subprocess, "Popen", start)
    return started


def test_a_run_is_started_resumed_or_taken(tmp_path, commands):
    run = tmp_path / "a"

    def train():
        return runs.train("m/r.yaml", run, lr=0.1)

    with pytest.raises(FileNotFoundError):  # as no training wrote a summary
        train()
    assert commands.pop()[2:] == [
        "--config_path", "configs/m/r.yaml", "--output_path", str(tmp_path), "--run_name", "a", "--lr", "0.1"
    ]  # fmt: skip
    run.mkdir()
    (run / "config.yaml").touch()
    with pytest.raises(FileNotFoundError):
        train()
    assert commands.pop()[2:] == ["--resume", str(run)]
    (run / "summary.json").write_text('{"images": 1}')
    assert train() == {"images": 1} and not commands


def tops(rate_of_best):
    """An experiment whose networks are all best at one rate."""
    tried = []

    def trial(name, rate):
        tried.append((name, rate))
        return -abs(rate - rate_of_best)

    return SimpleNamespace(trial=trial), tried


@pytest.mark.parametrize(
    ("best", "rates"),
    [(0.2, [0.1, 0.2, 0.4]), (0.4, [0.1, 0.2, 0.4, 0.8]), (0.05, [0.025, 0.05, 0.1, 0.2, 0.4])],
)
def test_the_best_rate_is_no_border_and_all_networks_have_as_many_trials(best, rates):
    experiment, _ = tops(best)
    found = multigrain_joint.tune(experiment)
    assert {name: sorted(row) for name, row in found.items()} == dict.fromkeys(
        multigrain_joint.NETWORKS, rates
    )
    assert {multigrain_joint.best_of(row) for row in found.values()} == {best}


def test_the_rates_of_the_curve_give_cross_entropy_no_more_than_it_has_alone():
    rates = [multigrain_joint.rate_of(weight, 0.4, 0.8) for weight in multigrain_joint.LAMBDAS]
    assert rates == [0.8, 0.8, 0.8, 0.53, 0.44, 0.4]


def test_the_bars():
    plain = [dict.fromkeys(multigrain_joint.FIGURES, 80.0)] * 2

    def met(**changes):
        return multigrain_joint.bars_met(multigrain_joint.minus([plain[0] | changes] * 2, plain))

    assert met(top1=79.0, map_copies=85.0)
    assert not met(top1=78.9, map_copies=85.0)
    assert not met(top1=79.0, map_copies=84.9)


def test_what_was_measured_is_kept(tmp_path):
    kept = tmp_path / "a.json"
    assert multigrain_joint.once(kept, lambda: {"a": 1}) == {"a": 1} == json.loads(kept.read_text())
    assert multigrain_joint.once(kept, lambda: pytest.fail("measured twice")) == {"a": 1}


def test_pairs_are_folders_of_their_photographs(tmp_path):
    photos = tmp_path / "photos" / "deep"
    photos.mkdir(parents=True)
    picture = np.zeros((8, 8, 3), np.uint8)
    for members in retrieval_sets.PAIRS.values():
        for member in members:
            name, _, frame = member.partition("#")
            if frame:
                film = cv2.VideoWriter(str(photos / name), cv2.VideoWriter_fourcc(*"MJPG"), 25, (8, 8))
                for _ in range(531):
                    film.write(picture)
                film.release()
            else:
                cv2.imwrite(str(photos / name), picture)
    (tmp_path / "cat").mkdir()
    cv2.imwrite(str(tmp_path / "cat" / "1.png"), picture)
    files = [str(tmp_path / "cat" / "1.png")]
    where = retrieval_sets.pairs_set(files, tmp_path / "set", [tmp_path / "photos"])
    count = {
        folder.name: len(list(folder.iterdir())) for folder in where["data_path"].iterdir() if folder.is_dir()
    }
    assert count == {name: len(members) for name, members in retrieval_sets.PAIRS.items()}
    assert [path.name for path in where["distractors"].glob("*.png")] == ["cat_1.png"]

    (photos / "graf3.png").unlink()
    with pytest.raises(SystemExit, match=r"graf3\.png is in none of the folders"):
        retrieval_sets.pairs_set(files, tmp_path / "other", [tmp_path / "photos"])
    assert not (tmp_path / "other" / "pairs").exists()
