# SPDX-License-Identifier: Apache-2.0
"""train.py, eval.py, export.py and infer.py from the outside: files, last lines, exit codes, messages."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from src.checkpoint.file import read_checkpoint
from src.data.binary import CIFAR10, read_set
from tests.helpers.doors import last_json


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def photos(data_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    test = read_set(CIFAR10, data_path, "test")
    for index in range(5):
        picture = Image.fromarray(test.images[index].transpose(1, 2, 0))
        picture.save(folder / f"{index}.png")
    picture.convert("L").resize((300, 200)).save(folder / "grey.jpg")
    return folder


def test_a_run_leaves_all_that_the_readme_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "config.yaml", "classes.txt", "metrics.jsonl", "train.log", "tensorboard", "checkpoints",
        "summary.json",
        "evaluation.json", "report.html", "starts.json",
        "learning_curves.png", "confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png",
    }  # fmt: skip


def test_train_log_begins_with_the_device_and_the_warnings_of_the_rates(trained):
    lines = (trained / "train.log").read_text().splitlines()
    assert any("running on CPU, rank 0 of 1" in line for line in lines)
    assert sum("WARNING an update sees 20 images, not lr_base_batch 512" in line for line in lines) == 1


def test_evaluation_agrees_with_training_and_on_any_batch_size(door, best, trained):
    summary = json.loads((trained / "summary.json").read_text())
    whole = last_json(door("eval.py", checkpoint_path=best))
    parts = last_json(door("eval.py", checkpoint_path=best, eval_batch_size=33))
    assert whole["averaged_weights"] and whole["count"] == parts["count"] == 70
    assert whole["top1"] == parts["top1"] == summary["best"]["top1"]
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-5)


def test_a_run_is_evaluated_by_its_best_checkpoint_for_people_and_programs(door, trained, tmp_path):
    """A folder in place of a file; a table above the JSON; every prediction; pictures of these weights."""
    asked = {"predictions": tmp_path / "out.csv", "pictures": tmp_path / "pictures"}
    done = door("eval.py", checkpoint_path=trained, **asked)
    answer = last_json(done)
    best = json.loads((trained / "summary.json").read_text())["best"]
    assert (answer["top1"], 20 * answer["step"]) == (best["top1"], best["images"])
    assert answer["checkpoint"] == str(trained / "checkpoints" / "best.ckpt") and "top5" not in answer
    low, high = answer["top1_interval"]
    assert f"top-1       {answer['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f})" in done.stdout
    with asked["predictions"].open() as file:
        lines = list(csv.DictReader(file))
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert len(lines) == 70 and 100 * right / 70 == pytest.approx(answer["top1"])
    assert {path.name for path in asked["pictures"].iterdir()} == {
        "confusion_matrix.png", "recall_by_class.png", "worst_mistakes.png",
    }  # fmt: skip


def test_raw_weights_are_not_the_average(door, best):
    averaged = last_json(door("eval.py", checkpoint_path=best))
    raw = last_json(door("eval.py", "--raw_weights", checkpoint_path=best))
    assert raw["averaged_weights"] is False and raw["loss"] != averaged["loss"]


def test_export_then_infer_gives_what_the_checkpoint_gives(door, best, photos, tmp_path):
    report = last_json(
        door("export.py", checkpoint_path=best, file_format="MINDIR", file_name=tmp_path / "m")
    )
    assert report["passed"] and report["inputs"] == {"random": 8, "real": 64}
    assert report["folding"]["relative_difference"] <= 1e-5
    answers = [
        last_json(door("infer.py", photos, "--json", model_path=path))
        for path in (tmp_path / "m", tmp_path / "m" / "model.mindir", best)
    ]
    assert answers[0]["results"] == answers[1]["results"]
    for exported, checkpoint in zip(answers[0]["results"], answers[2]["results"], strict=True):
        assert [p["class"] for p in exported["predictions"]] == [
            p["class"] for p in checkpoint["predictions"]
        ]
        assert np.allclose(
            [p["probability"] for p in exported["predictions"]],
            [p["probability"] for p in checkpoint["predictions"]],
            atol=1e-5,
        )
    assert len(answers[0]["results"]) == 6


def test_weights_of_others_are_used_without_a_data_set(door, best, photos, tmp_path):
    """Old behaviour: infer.py refused them, and export.py wanted the data of their classes."""
    checkpoint = read_checkpoint(best)
    np.savez(tmp_path / "official.npz", **checkpoint.network_weights())
    (tmp_path / "names.json").write_text(json.dumps(checkpoint.meta["class_names"]))
    config = {**checkpoint.meta["config"], "data_path": str(tmp_path / "nowhere")}
    (tmp_path / "recipe.json").write_text(json.dumps(config))  # which is YAML too
    how = {"config_path": tmp_path / "recipe.json"}
    named = {**how, "class_names": tmp_path / "names.json"}
    theirs = last_json(door("infer.py", photos, "--json", model_path=tmp_path / "official.npz", **named))
    ours = last_json(door("infer.py", photos, "--json", model_path=best))
    assert theirs["results"] == ours["results"]
    report = last_json(door("export.py", checkpoint_path=tmp_path / "official.npz", fold="false", **how))
    assert report["passed"] and report["inputs"]["real"] == 0
    assert report["folding"] is None and report["folder"] == str(tmp_path / "resnet9_mindir_unfolded")


def test_an_unreadable_image_is_named_and_the_exit_code_says_so(door, best, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    done = door("infer.py", photos / "0.png", broken, model_path=best)
    assert done.returncode == 2
    assert "0.png" in done.stdout and f"skipped {broken}" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 2 images")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", [], "model: none given; name a recipe, --config_path configs/MODEL/RECIPE.yaml"),
        ("train.py", ["--confg_path", "x"], "the nearest known key is config_path; no model is named"),
        ("train.py", ["--model", "resnet9", "--lerning_rate", "1"], "lerning_rate: 1 given, but there is no"),
        ("train.py", ["--resume", "nowhere"], "nowhere"),
        ("train.py", ["--model", "resnet9", "--data_path", "nowhere"], "nowhere"),
        ("train.py", ["extra"], "'extra' given where a --key is expected"),
        ("eval.py", ["--checkpoint_path", "nowhere.ckpt"], "nowhere.ckpt does not exist"),
        ("eval.py", [], "--checkpoint_path"),
        ("export.py", ["--checkpoint_path", "LICENSE"], "LICENSE is damaged or no checkpoint"),
        ("infer.py", ["--model_path", "LICENSE", "LICENSE"], "LICENSE given, allowed"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(door, script, arguments, message):
    done = door(script, *arguments)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_formats_that_are_not_for_this_network_or_device_are_refused(door, best):
    for file_format, word in (("AIR", "Ascend"), ("PACKED", "ONNX"), ("ZIP", "MINDIR")):
        done = door("export.py", checkpoint_path=best, file_format=file_format)
        assert done.returncode == 2 and word in done.stderr.splitlines()[-1]


def test_a_checkpoint_that_was_moved_still_evaluates(door, best, data_path, tmp_path):
    moved = tmp_path / "model.ckpt"
    moved.write_bytes(best.read_bytes())
    assert last_json(door("eval.py", checkpoint_path=moved, data_path=data_path))["count"] == 70


def test_a_finished_run_resumes_to_the_same_end(door, trained):
    before = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    done = door("train.py", "--eval_batch_size", 50, resume=trained)
    assert done.returncode == 0, done.stderr
    after = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    assert all(np.array_equal(before.arrays[name], after.arrays[name]) for name in before.arrays)
