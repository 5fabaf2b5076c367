# SPDX-License-Identifier: Apache-2.0
"""What a run does and leaves behind: files, records, log lines, intervals, the best checkpoint."""

import gc
import io
import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.evaluation.evaluate import Evaluation
from src.evaluation.metrics import Totals, of_plain_view
from src.model_utils.config import load_config
from src.model_utils.device_adapter import Device
from src.training import evaluator, session
from src.training.records import read_metrics
from src.training.trainer import Trainer
from src.zoo import config_class_of, create_recipe

pytestmark = pytest.mark.usefixtures("quartet_log", "graph_mode")

TRAIN_FIELDS = {
    "images", "step", "epoch", "loss", "lr", "images_per_second", "loss_scale", "overflow", "grad_norm",
}  # fmt: skip
EVAL_FIELDS = {"images", "step", "epoch", "eval_top1", "eval_loss", "eval_count"}
VIEW_FIELDS = {"eval_top1_plain", "eval_loss_plain"}
FINISHED = {
    "epochs": 3.0, "ema_decay": 0.5, "save_every": 0.6, "keep_checkpoints": 2, "seed": 3, "tta": "six",
    "tta_share": 0.5,
}  # fmt: skip
SUMMARY_FIELDS = {
    "damaged_images",
    "model", "parameters", "final", "best", "recall_by_class", "images", "batches", "updates", "epochs",
    "wall_seconds", "images_per_second", "peak_memory_mib", "seed", "device", "environment",
}  # fmt: skip


def strict_json(path):
    """JSON as its standard has it: no NaN, no Infinity."""

    def refuse(word):
        raise ValueError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def _config_of(run_dir):
    return load_config({}, config_class_of=config_class_of, config_path=run_dir / "config.yaml")


@pytest.fixture(scope="module")
def finished(narrow_config, tmp_path_factory):
    """The folder of a ResNet9 run of 3 epochs with an average and test-time views, and its summary."""
    gc.collect()
    run_dir = tmp_path_factory.mktemp("runs") / "resnet9"
    return run_dir, session.start(narrow_config(**FINISHED), create_recipe, run_dir=run_dir)


def test_a_run_leaves_its_files(finished):
    run_dir, _ = finished
    names = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events.out.tfevents.")}
    best = read_checkpoint(run_dir / "checkpoints" / "best.ckpt")
    assert len(events) == 1
    assert names - events == {
        "config.yaml", "classes.txt", "metrics.jsonl", "train.log", "summary.json",
        "evaluation.json", "report.html", "starts.json",
        "learning_curves.png", "confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png",
        "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "checkpoints/step_00000012.ckpt", "checkpoints/step_00000015.ckpt",
    }  # fmt: skip
    assert read_checkpoint(run_dir / "checkpoints" / "last.ckpt").meta["step"] == 15
    assert best.meta["step"] in (5, 10, 15)
    for name in ("learning_curves", "confusion_matrix", "worst_mistakes"):
        with Image.open(run_dir / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 200


def test_metrics_have_the_promised_fields(finished):
    run_dir, _ = finished
    records = read_metrics(run_dir / "metrics.jsonl")
    training = [r for r in records if "loss" in r]
    evaluations = [r for r in records if "eval_top1" in r]
    assert all(r.keys() == TRAIN_FIELDS for r in training)
    assert all(r.keys() == EVAL_FIELDS for r in evaluations[:-1])
    assert evaluations[-1].keys() == EVAL_FIELDS | VIEW_FIELDS
    assert evaluations[-1]["eval_loss"] != evaluations[-1]["eval_loss_plain"]
    assert len(training) + len(evaluations) == len(records)
    assert [r["step"] for r in evaluations] == [5, 10, 15]
    assert {r["eval_count"] for r in evaluations} == {70}
    steps = [r["step"] for r in training]
    assert steps == sorted(set(steps))
    assert set(steps) >= set(range(2, 15, 2)) | {15}
    assert all(r["epoch"] == r["step"] / 5 for r in records)
    assert all(r["images"] == r["step"] * 40 for r in records)
    assert training[-1]["loss"] < training[0]["loss"]
    rates = create_recipe(_config_of(run_dir)).rates(updates=15, updates_per_epoch=5, images_per_update=40)
    for r in training:
        assert r["lr"] == pytest.approx(rates[r["step"] - 1])


def test_the_config_file_reads_back_equal(finished, narrow_config):
    assert _config_of(finished[0]) == narrow_config(**FINISHED)


def test_the_summary_is_json_with_the_promised_fields(finished):
    run_dir, returned = finished
    summary = strict_json(run_dir / "summary.json")
    assert summary == returned
    assert summary.keys() == SUMMARY_FIELDS
    evaluations = [r for r in read_metrics(run_dir / "metrics.jsonl") if "eval_top1" in r]
    names = ("top1", "loss", "count", "top1_plain", "loss_plain")
    assert summary["final"] == {name: evaluations[-1][f"eval_{name}"] for name in names}
    best = of_plain_view(summary["best"])["top1"]
    assert best == max(of_plain_view(record)["eval_top1"] for record in evaluations)
    assert summary["recall_by_class"].keys() == {"red", "green", "blue", "grey"}
    assert (summary["model"], summary["epochs"], summary["seed"]) == ("resnet9", 3.0, 3)
    assert (summary["images"], summary["batches"], summary["updates"]) == (600, 15, 15)
    assert summary["device"] == {"target": "CPU", "cards": 1}
    assert summary["parameters"] == 3 * 4 * 9 + 4 * 4 * 9 * 3 + 4 * 8 * 9 + 8 * 8 * 9 * 3 + 8 * 4 + 2 * (
        4 * 4 + 4 * 8
    )


def test_the_log_file_has_a_line_for_every_record(finished):
    run_dir, _ = finished
    lines = (run_dir / "train.log").read_text().splitlines()
    records = read_metrics(run_dir / "metrics.jsonl")
    assert sum("images/s" in line for line in lines) == sum("loss" in r for r in records)
    assert sum("top-1" in line and "(70 images)" in line for line in lines) == 3
    assert lines[-1].endswith(f"summary and pictures are in {run_dir}")


def test_what_is_evaluated_is_the_average(start, tmp_path, monkeypatch):
    seen = []
    evaluate = evaluator.evaluate_network

    def spy(network, *arguments, **keys):
        seen.append({p.name: p.asnumpy().copy() for p in network.get_parameters()})
        return evaluate(network, *arguments, **keys)

    monkeypatch.setattr(evaluator, "evaluate_network", spy)
    start(tmp_path / "run", ema_decay=0.9, train_steps=5)
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    averaged, raw = last.network_weights(), last.network_weights(ema=False)
    assert len(seen) == 1
    assert seen[0].keys() == averaged.keys() == raw.keys()
    for name, value in seen[0].items():
        np.testing.assert_array_equal(value, averaged[name])
        assert not np.array_equal(value, raw[name]), name


def prescribed(monkeypatch, figures):
    """Makes the evaluations give these (top1, loss, top1 of the plain view or none), one after the other."""
    rest, totals = iter(figures), Totals(4)
    totals.update(np.eye(4), np.arange(4))

    def evaluate(*_, **__):
        top1, loss, *plain = next(rest)
        of_plain = {"top1_plain": plain[0]} if plain else {}
        return Evaluation({"top1": top1, "loss": loss, "count": 70, **of_plain}, totals, [])

    monkeypatch.setattr(evaluator, "evaluate_network", evaluate)
    return rest


@pytest.mark.parametrize(
    ("metric", "step"),
    [("top1", 4), ("loss", 8)],
    ids=["top1 of the plain view: ties stay with the first", "loss"],
)
def test_best_and_the_interval_of_evaluation(start, tmp_path, monkeypatch, metric, step):
    figures = [(50.0, 1.0), (70.0, 0.8), (99.0, math.nan), (60.0, 0.5), (80.0, 0.9, 70.0)]
    rest = prescribed(monkeypatch, figures)
    summary = start(tmp_path / "run", eval_every=0.4, save_every=9.0, best_metric=metric, keep_checkpoints=9)
    assert next(rest, None) is None
    top1, loss = figures[step // 2 - 1]
    best = {"images": 40 * step, "epoch": step / 5, "top1": top1, "loss": loss, "count": 70}
    assert summary["best"] == best
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert saved.meta["step"] == step
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if "eval_top1" in r] == [2, 4, 6, 8, 10]
    names = {path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*")}
    assert names == {f"step_{s:08d}.ckpt" for s in (2, 4, 6, 8, 10)}, "what is evaluated is saved first"


def test_a_last_evaluation_that_is_no_number_still_makes_a_valid_summary(start, tmp_path, monkeypatch):
    prescribed(monkeypatch, [(25.0, math.nan)])
    summary = start(tmp_path / "run", train_steps=3)
    assert summary == strict_json(tmp_path / "run" / "summary.json")
    assert summary["final"]["loss"] is None
    assert summary["best"] is None
    assert summary["recall_by_class"] == dict.fromkeys(("red", "green", "blue", "grey"), 100.0)
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize(
    ("keys", "steps", "updates"),
    [
        ({"epochs": 3.0}, 15, 15),
        ({"epochs": 0.5}, 2, 2),
        ({"epochs": 0.01, "warmup_epochs": 0.0}, 1, 1),
        ({"epochs": 3.0, "train_steps": 7}, 7, 7),
        ({"epochs": 2.0, "accumulate_steps": 3}, 9, 3),  # the tenth batch alone makes no update
        ({"epochs": 2.0, "accumulate_steps": 10}, 10, 1),
    ],
)
def test_the_length_of_a_run(narrow_config, tiny_recipe, keys, steps, updates):
    trainer = Trainer(tiny_recipe(narrow_config(**keys)), device=Device("CPU"))
    assert (trainer.course.steps, trainer.course.updates) == (steps, updates)
    assert len(trainer.train_step.rates) == updates


def test_a_run_shorter_than_one_update_is_refused(narrow_config, tiny_recipe):
    config = narrow_config(epochs=2.0, accumulate_steps=11)
    with pytest.raises(UserError, match="accumulate_steps: 11 given, and the run has 10 batches: no update"):
        Trainer(tiny_recipe(config), device=Device("CPU"))


def test_what_is_due_inside_an_accumulation_comes_after_its_update(start, tmp_path):
    """5 batches an epoch: it ends inside the second update of 3, and inside the fourth."""
    run_dir = tmp_path / "run"
    start(run_dir, accumulate_steps=3, epochs=3.0, log_every=2, save_every=0.2, keep_checkpoints=9)
    records = read_metrics(run_dir / "metrics.jsonl")
    assert [r["step"] for r in records if "eval_top1" in r] == [6, 12, 15]
    assert [r["step"] for r in records if "loss" in r] == [3, 6, 9, 12, 15]
    assert [r["images"] for r in records if "loss" in r] == [120, 240, 360, 480, 600]
    steps = [read_checkpoint(path).meta["step"] for path in (run_dir / "checkpoints").glob("step_*")]
    assert sorted(steps) == [3, 6, 9, 12, 15]
    assert "batch 6/15  epoch 1.20" in (run_dir / "train.log").read_text()


def test_a_run_in_batches_evaluates_at_its_end(start, tmp_path):
    summary = start(tmp_path / "run", train_steps=7, eval_every=2.0, log_every=3)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    # 5 is the end of the epoch, where a checkpoint is written.
    assert [r["step"] for r in records if "loss" in r] == [3, 5, 6, 7]
    assert [r["step"] for r in records if "eval_top1" in r] == [7]
    assert (summary["batches"], summary["epochs"], summary["final"]["count"]) == (7, 1.4, 70)


def test_what_an_optimizer_counts_is_in_the_records(start, tmp_path):
    """THOR with no damping to speak of raises it for both factors of two layers, in every update."""
    keys = {"optimizer": "thor", "thor_damping": 1e-30, "thor_every": 1, "lr": 1e-12}
    start(tmp_path / "run", train_steps=3, log_every=1, **keys)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["damping_raised"] for r in records if "loss" in r] == [4, 8, 12]


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(start, tmp_path):
    (tmp_path / "config.yaml").write_text("lr: 1\n")
    with pytest.raises(UserError, match=r"holds a run already.*--resume .*run_name") as error:
        start(tmp_path, run_name="mine")
    assert str(tmp_path) in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_data_that_does_not_fit_leaves_no_folder(start, tmp_path):
    with pytest.raises(UserError, match="examples_per_class"):
        start(tmp_path / "run", examples_per_class=201)
    assert not (tmp_path / "run").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_no_lines_of_steps(start, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    start(tmp_path / "run", train_steps=4)
    shown = sys.stderr.getvalue()
    assert "4/4" in shown
    assert "images/s" in shown
    assert "top-1" in shown
    log = (tmp_path / "run" / "train.log").read_text()
    assert "batch 4/4" not in shown + log


def test_without_a_terminal_there_are_lines_and_no_bar(start, tmp_path, capsys):
    start(tmp_path / "run", train_steps=4)
    shown = capsys.readouterr().err
    assert "batch 4/4  epoch 0.80  loss " in shown
    assert "\r" not in shown
    assert "batch/s" not in shown
