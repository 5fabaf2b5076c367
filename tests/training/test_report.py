# SPDX-License-Identifier: Apache-2.0
"""The pictures at the end of a run say whose they are, and a page that fails costs nothing."""

import pytest

from src.common.files import read_json
from src.evaluation.evaluate import Evaluation
from src.evaluation.metrics import Totals
from src.training import evaluator, report

WRITE_PAGE = report.write_page  # which the other tests here do without
pytestmark = pytest.mark.usefixtures("quartet_log", "graph_mode")


@pytest.mark.parametrize(
    ("figures", "decay", "said"),
    [
        ([50.0, 60.0], 0.5, "epoch 2, averaged weights"),
        ([60.0, 50.0], 0.0, "epoch 2, raw weights (best: epoch 1)"),
    ],
)
def test_pictures_say_which_weights_they_show(start, tmp_path, monkeypatch, figures, decay, said):
    """They are of the last weights, which need not be those of `best`; mistakes have names."""
    rest, drawn = iter(figures), []

    def evaluate(*_, **__):
        totals = Totals(4)
        return Evaluation({"top1": next(rest), "loss": 1.0, "count": 70}, totals, [])

    monkeypatch.setattr(evaluator, "evaluate_network", evaluate)
    monkeypatch.setattr(report, "write_pictures", lambda *_, **how: drawn.append(how))
    start(tmp_path / "run", epochs=2.0, eval_every=1.0, ema_decay=decay)
    assert drawn[0]["of"] == said and drawn[0]["name_of"](7) == "7"


def test_a_page_that_cannot_be_drawn_costs_no_finished_run(start, tmp_path, monkeypatch, quartet_log):
    """The summary and the evaluation's counts are there; how to write the page again is said."""

    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(report, "write_page", WRITE_PAGE)
    monkeypatch.setattr(report, "write_run_page", fail)
    summary = start(tmp_path / "a run", train_steps=2)
    assert read_json(tmp_path / "a run" / "summary.json") == summary
    assert read_json(tmp_path / "a run" / "evaluation.json")["class_names"] == list(
        summary["recall_by_class"]
    )
    assert not (tmp_path / "a run" / "report.html").exists()
    said = [record.getMessage() for record in quartet_log if record.levelname == "WARNING"]
    assert any(
        text.startswith("report.html is not written (RuntimeError: no fonts); the run is complete.")
        and text.endswith(f"python -m src.tools.report '{tmp_path}/a run'")
        for text in said
    )
