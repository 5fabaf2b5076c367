# SPDX-License-Identifier: Apache-2.0
"""Retrieval and whole pictures from the outside: trained, evaluated both ways, exported as a square."""

import json

import pytest
from PIL import Image

from tests.helpers.doors import error_of, last_json

WHOLE = {
    "model": "birealnet18", "block_units": "[1,1,1,1]", "widths": "[4,4,8,8]", "stem": "small",
    "image_size": 32, "eval_crop": "whole", "batch_size": 6, "train_steps": 2, "eval_every": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(door, pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    done = door("train.py", data_path=pictures, output_path=output, run_name="run", **WHOLE)
    assert done.returncode == 0, done.stderr
    assert (output / "run" / "worst_mistakes.png").exists()
    return output / "run" / "checkpoints" / "last.ckpt"


def test_whole_pictures_are_evaluated_in_any_batches(door, checkpoint):
    final = json.loads((checkpoint.parents[1] / "summary.json").read_text())["final"]
    answer = last_json(door("eval.py", checkpoint_path=checkpoint, eval_batch_size=1))
    assert answer["count"] == final["count"] == 5
    assert answer["loss"] == pytest.approx(final["loss"], rel=1e-4)


def test_an_export_takes_squares(door, checkpoint, tmp_path):
    report = last_json(
        door("export.py", checkpoint_path=checkpoint, file_format="MINDIR", file_name=tmp_path / "m")
    )
    assert report["passed"] and report["inputs"]["real"] == 5


def test_groups_of_pictures_and_their_sheet(door, checkpoint, pictures, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    done = door(
        "eval.py", "--task", "retrieval", "--sheet", sheet, checkpoint_path=checkpoint, data_path=pictures,
        eval_image_size=48,
    )  # fmt: skip
    answer = last_json(done)
    assert (answer["protocol"], answer["queries"], answer["images"]) == ("groups", 36, 36)
    assert answer["recall@1"] <= answer["recall@10"] and 0 < answer["mAP"] <= 100
    with Image.open(sheet) as image:
        assert image.format == "PNG" and image.height > 16 * 150


def test_a_damaged_picture_and_wrong_arguments(door, trained, tmp_path):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/broken.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), "red" if name < "b" else "blue").save(tmp_path / name)
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    retrieval = ("eval.py", "--task", "retrieval")
    keys = {"checkpoint_path": checkpoint, "data_path": tmp_path}
    assert f"{tmp_path / 'b' / 'broken.png'}: not an image" in error_of(door(*retrieval, **keys))
    answer = last_json(door(*retrieval, **keys, damaged_images="skip"))
    assert (answer["images"], answer["damaged_images"], answer["queries_without_positives"]) == (3, 1, 1)
    assert answer["mAP"] == 100
    assert "no --data_path given" in error_of(door(*retrieval, checkpoint_path=checkpoint))
    assert "--sheet: s.png given, allowed: only with --task retrieval" in error_of(
        door("eval.py", "--sheet", "s.png", checkpoint_path=checkpoint)
    )
    assert "'oxford' given, allowed: auto, holidays" in error_of(
        door(*retrieval, "--protocol", "oxford", **keys)
    )
