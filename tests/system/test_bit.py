# SPDX-License-Identifier: Apache-2.0
"""BiT from the outside, on a folder of pictures: train, stop, resume, fine-tune, evaluate, export, infer."""

import json
import math
import shutil

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.training.records import read_metrics
from tests.helpers.doors import check_same_answers, error_of, last_json
from tests.helpers.runs import check_resumes_to_the_same_bits, prepare_run
from tests.system.conftest import CLASSES

SMALL = {
    "model": "bit_r50x1", "block_units": [1, 1, 1, 1], "width_factor": 0.5,
    "image_size": 32, "resize_size": 40, "batch_size": 6, "eval_batch_size": 5, "train_steps": 6,
    "eval_every": 2, "save_every": 0.5, "keep_checkpoints": 9, "log_every": 1,
    "mixup_alpha": 0.2, "randaugment_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(door, pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("bit")
    done = door("train.py", data_path=pictures, output_path=output, run_name="first", **SMALL)
    assert done.returncode == 0, done.stderr
    return output / "first"


@pytest.fixture(scope="module")
def checkpoint(run):
    return run / "checkpoints" / "last.ckpt"


def test_class_names_are_saved_with_the_run(run, checkpoint):
    assert (run / "classes.txt").read_text().splitlines() == list(CLASSES)
    assert read_checkpoint(checkpoint).meta["class_names"] == list(CLASSES)


def test_the_log_says_once_what_the_folder_holds(run, pictures):
    """Old behaviour: nothing said where the classes lie, nor what was left out."""
    log = (run / "train.log").read_text()
    classes = f"3 classes ({', '.join(CLASSES)})"
    line = f"data: 31 training pictures in {pictures}, 5 test pictures held out, of {classes}\n"
    assert log.count(line) == 1
    assert log.count("left out: nothing\n") == 1 and log.count("data: ") == 1


def test_evaluation_is_that_of_training(door, run, checkpoint):
    final = json.loads((run / "summary.json").read_text())["final"]
    answer = last_json(door("eval.py", checkpoint_path=checkpoint, eval_batch_size=2))
    assert answer["count"] == final["count"] == 5 and answer["top1"] == final["top1"]
    assert answer["loss"] == pytest.approx(final["loss"], rel=1e-4)
    larger = last_json(door("eval.py", checkpoint_path=checkpoint, eval_image_size=64))
    assert larger["loss"] != answer["loss"] and larger["count"] == 5


def test_a_stopped_run_goes_on_to_the_same_bits(run, tmp_path):
    check_resumes_to_the_same_bits(run, tmp_path / "copy", step=2)
    records = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 7))
    assert all(math.isfinite(r["loss"]) for r in records if "loss" in r)


def test_fine_tuning_starts_from_a_checkpoint_with_other_classes(checkpoint, data_path, caplog):
    keys = {**SMALL, "data_path": str(data_path), "examples_per_class": 3, "pretrained_path": str(checkpoint)}
    with caplog.at_level("INFO", logger="quartet"):
        network = prepare_run(keys).network
    assert f"starting from {checkpoint}, sha256 " in caplog.text
    tuned = {p.name: p.asnumpy() for p in network.get_parameters()}
    first = read_checkpoint(checkpoint).network_weights()
    assert tuned.keys() == first.keys()
    for name, array in first.items():
        if name.startswith("head.conv."):
            assert not tuned[name].any() and len(tuned[name]) == 4
        else:
            np.testing.assert_array_equal(tuned[name], array)


def test_the_export_is_folded_and_gives_the_same_answers(door, checkpoint, pictures, tmp_path):
    report = last_json(door("export.py", checkpoint_path=checkpoint, file_name=tmp_path / "m"))
    assert report["passed"] and report["file"]["limit"] == 1e-5 and report["inputs"]["real"] == 5
    graph = (tmp_path / "m" / "model.mindir").read_bytes()
    assert b"GroupNorm" in graph
    assert b"BatchNorm" not in graph and b"Rsqrt" not in graph, "weights are standardised at run time"
    card = json.loads((tmp_path / "m" / "card.json").read_text())["preparation"]
    assert (card["crop"], card["interpolation"], card["image_size"]) == ("squash", "tf_bilinear", 32)
    check_same_answers(door, pictures, tmp_path / "m", checkpoint, count=36)


def test_data_with_other_classes_is_refused(door, checkpoint, data_path):
    message = error_of(door("eval.py", checkpoint_path=checkpoint, data_path=data_path))
    assert "has classes that the network does not have: green, blue, grey" in message


def test_bad_data_and_weights_are_one_line(door, pictures, tmp_path, checkpoint):
    def refused(**keys) -> str:
        given = {**SMALL, "data_path": pictures, "output_path": tmp_path / "runs", **keys}
        return error_of(door("train.py", **given))

    text, alone = tmp_path / "text", tmp_path / "alone"
    shutil.copytree(pictures, text)
    (text / "red" / "note.jpg").write_text("no picture")
    assert "note.jpg" in refused(data_path=text) and "skip" in refused(data_path=text)
    shutil.copytree(pictures / "red", alone / "red")
    assert "one class alone, red" in refused(data_path=alone)
    truncated = tmp_path / "BiT-M-R50x1.npz"
    np.savez(truncated, a=np.zeros((100, 100)))
    truncated.write_bytes(truncated.read_bytes()[:-3000])
    assert str(truncated) in refused(pretrained_path=tmp_path)
    assert "use --block_units [1,1,1,1]" in refused(pretrained_path=checkpoint, block_units=[1, 1, 1, 2])
    assert not (tmp_path / "runs").exists()
