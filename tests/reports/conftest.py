# SPDX-License-Identifier: Apache-2.0
"""Runs as they lie in folders, with names that a test chooses."""

import numpy as np
import pytest

from src.common.files import write_json
from src.evaluation.evaluate import Evaluation, Example
from src.evaluation.metrics import Totals
from src.experiments.comparison import read_run
from src.reports.kept import facts_of
from src.zoo import config_class_of
from tests.experiments.fake_runs import fake_run


def an_evaluation(classes, *, side=8, pictures=2, seed=0):
    """Some logits of 5 images a class, and so many pictures of noise of either kind."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), 5)
    logits = rng.normal(size=(len(labels), classes)) + 2 * np.eye(classes)[labels]
    totals = Totals(classes)
    totals.update(logits, labels)
    shown = [
        Example(k, rng.integers(0, 256, (side, side, 3), np.uint8), k % classes, 0, 0.75, 1.5)
        for k in range(pictures)
    ]
    return Evaluation(totals.result(), totals, shown, surest=shown)


@pytest.fixture
def run_of(tmp_path):
    """run_of(names, ...) -> the folder of a finished run of these classes, and what is in it."""

    def make(names, *, name="run", file="{}.png", ended=True, **how):
        folder = tmp_path / name
        fake_run(folder)
        if ended:
            evaluation = an_evaluation(len(names), **how)
            kept = {"class_names": names, "mean": [0] * 3, "std": [1] * 3, "of": "epoch 2, raw weights"}
            write_json(folder / "evaluation.json", facts_of(evaluation, **kept, name_of=file.format))
        else:
            (folder / "summary.json").unlink()
        return read_run(folder, config_class_of)

    return make
