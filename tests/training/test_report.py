"""The pictures at the end of a run say whose they are."""

import pytest

from src.evaluation.evaluate import Evaluation
from src.evaluation.metrics import Totals
from src.training import evaluator, report

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
