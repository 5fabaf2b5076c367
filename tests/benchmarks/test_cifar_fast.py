# SPDX-License-Identifier: Apache-2.0
"""The record of CIFAR-10's fast recipe from runs that are written by hand, and the peer's own file."""

import sys

import pytest

from benchmarks.airbench_peer import CHANGES, definitions
from benchmarks.cifar_fast import figures, main


def test_figures_of_three_runs():
    runs = [
        {"final": {"top1": top1, "top1_plain": top1 - 1}, "wall_seconds": seconds}
        for top1, seconds in ((90.0, 900.0), (91.0, 1000.0), (92.0, 1300.0))
    ]
    found = figures(runs, {"train_seconds": 950.0, "views_seconds": 50.0}, 0.24069)
    assert found["top1"] == {
        "n": 3, "mean": 91, "median": 91, "min": 90, "max": 92, "standard_deviation": 1
    }  # fmt: skip
    assert found["top1_plain_view"]["mean"] == 90
    assert (found["ratio_of_seconds"], found["pflop"]) == (1.0, 0.2407)
    assert found["bars_met"] == {"top1": True, "pflop": True, "seconds": True}
    one = figures(runs[:1], {"train_seconds": 700.0, "views_seconds": 50.0}, 0.3)
    assert one["top1"]["standard_deviation"] is None
    assert one["bars_met"] == {"top1": False, "pflop": False, "seconds": False}


def test_no_run_is_refused(monkeypatch, capsys):
    words = ["cifar_fast", "--data", "x", "--airbench", "x", "--torch_python", "x", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "seeds: 0 given, allowed: a whole number >= 1" in capsys.readouterr().err


def test_the_peer_is_changed_where_it_must_be_and_another_file_is_refused(tmp_path):
    file = tmp_path / "airbench94_muon.py"
    file.write_text("\n".join(f"# {old}" for old in CHANGES) + "\nclass CifarNet:\n    ours = Event\n")
    assert definitions(file)["CifarNet"].ours.__name__ == "Event"
    file.write_text("import torch\n")
    with pytest.raises(SystemExit, match="another version"):
        definitions(file)
