# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to files for several batch sizes, and to answers by both backends and by the script."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from src.data.prepare.commands import prepare_samples
from tests.helpers.doors import error_of, last_json, start_door

ROOT = Path(__file__).parents[2]
without_lite = pytest.mark.skipif(
    importlib.util.find_spec("mindspore_lite") is not None, reason="mindspore_lite is installed"
)
STAND_IN = ROOT / "tests" / "deploy" / "lite_stand_in"


@pytest.fixture(scope="module")
def exported(door, trained, tmp_path_factory):
    """The report of an export of pixels for two batch sizes."""
    folder = tmp_path_factory.mktemp("exported")
    best = trained / "checkpoints" / "best.ckpt"
    return last_json(
        door(
            "export.py", checkpoint_path=best, input="uint8", export_batch_size="1,8", file_name=folder / "m"
        )
    )


@pytest.fixture
def with_lite(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))


@pytest.fixture
def script(tmp_path):
    def call(*arguments, folder=tmp_path, **variables):
        return subprocess.run(
            ["bash", str(ROOT / "scripts" / "run_infer_310.sh"), *map(str, arguments)],
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


def test_both_backends_say_what_evaluation_says(exported, trained, data_path, with_lite):
    """With labels: the counts of eval.py, to the image."""
    assert exported["passed"] and exported["inputs"] == {"random": 8, "real": 64}
    answers = [
        last_json(
            start_door(
                "infer.py", data_path, "--json", model_path=exported["folder"], labels="folders", backend=name
            )
        )
        for name in ("mindspore", "lite")
    ]
    assert answers[0]["results"] == answers[1]["results"] and len(answers[0]["results"]) == 70
    assert answers[0]["accuracy"] == answers[1]["accuracy"]
    best = json.loads((trained / "summary.json").read_text())["best"]
    assert (answers[0]["accuracy"]["top1"], answers[0]["accuracy"]["count"]) == (best["top1"], 70)
    for answer, name in zip(answers, ("mindspore", "lite"), strict=True):
        performance = answer["performance"]
        assert (performance["backend"], performance["device"], performance["images"]) == (name, "CPU", 70)
        assert [(one["batch_size"], one["calls"]) for one in performance["latency"]] == [(1, 6), (8, 8)]


@pytest.fixture
def photos(data_path, tmp_path):
    """Six test images in class folders, and one that is damaged."""
    prepare_samples(data_path, tmp_path / "flat", count=6)
    for image in (tmp_path / "flat").iterdir():
        folder = tmp_path / "photos" / image.stem.split("_")[1]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(image, folder / image.name)
    return tmp_path / "photos"


def test_the_script_on_a_card(script, exported, photos, with_lite, tmp_path):
    """Every answer is in a file, which it names."""
    done = script(exported["folder"], photos, "3", STAND_IN_CARDS="3")
    assert done.returncode == 0, done.stderr
    *lines, named = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["images", "preparation", "model", "latency", "accuracy"]
    assert re.fullmatch(r"answers      answers-\d{8}-\d{6}\.json", named)
    answers = json.loads((tmp_path / named.split()[1]).read_text())
    assert len(answers["results"]) == 6 and all(one["predictions"] for one in answers["results"])
    assert answers["performance"]["backend"] == "lite" and answers["accuracy"]["count"] == 6
    assert "on Ascend by MindSpore Lite, uint8 input" in lines[2] and "(6 calls)" in lines[3]
    assert "of 6)" in lines[4]


@without_lite
def test_the_script_on_a_cpu(script, exported, photos, tmp_path):
    """With labels of a file, and an image that is damaged."""
    (photos / "bad.jpg").write_bytes(b"no image")
    files = [path.relative_to(photos) for path in sorted(photos.rglob("*.*"))]
    (tmp_path / "labels.txt").write_text("".join(f"{file} grey\n" for file in files))
    variables = {
        "DEVICE_TARGET": "CPU",
        "BATCH_SIZE": "8",
        "LABELS": "labels.txt",
        "ANSWERS": "told/all.json",
    }
    done = script(exported["folder"], photos, **variables)
    assert error_of(done) == "error: 1 of 7 images could not be read and were skipped"
    assert done.stdout.startswith(
        "mindspore_lite is not installed: MindSpore itself runs the file on the CPU\n"
    )
    assert "bad.jpg: not an image" in done.stdout and "on CPU by MindSpore, uint8" in done.stdout
    *_, accuracy, named = done.stdout.splitlines()
    assert accuracy.startswith("accuracy") and "of 6)" in accuracy
    assert named == "answers      told/all.json"
    answers = json.loads((tmp_path / "told" / "all.json").read_text())
    assert len(answers["results"]) == 6 and len(answers["skipped"]) == 1


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {}, "0 arguments given; usage: bash scripts/run_infer_310.sh MODEL DATA [DEVICE_ID]"),
        (["a", "b", "0", "c"], {}, "4 arguments given; usage"),
        (["nowhere.mindir", "docs"], {}, "MODEL nowhere.mindir: no such file or folder; usage"),
        (["LICENSE", "nowhere"], {}, "DATA nowhere: no such file or folder; usage"),
        (["LICENSE", "docs"], {}, "LICENSE: the folder of an export or a .mindir in it is needed"),
        (["LICENSE", "docs", "one"], {}, "DEVICE_ID is one; a whole number of at least 0 is needed"),
        (["LICENSE", "docs"], {"DEVICE_ID": "-1"}, "DEVICE_ID is -1; a whole number"),
        (["x", "docs"], {"DEVICE_TARGET": "GPU"}, "DEVICE_TARGET is GPU; Ascend or CPU is needed"),
        (["x", "docs"], {"LABELS": "nowhere"}, "LABELS nowhere: no such file or folder"),
        (["x", "docs"], {}, "x/card.json: damaged model card"),
    ],
)
def test_a_wrong_call_of_the_script_is_one_line(script, tmp_path, arguments, variables, message):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "card.json").write_text("{")
    arguments = [tmp_path / word if word == "x" else word for word in arguments]
    assert message in error_of(script(*arguments, folder=ROOT, **variables))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (
            "infer.py",
            ["--backend", "onnx"],
            "backend: 'onnx' given, allowed: one of auto, mindspore, lite, onnxruntime",
        ),
        ("infer.py", ["--batch_size", "4"], "batch_size: 4 given, m was exported for 1, 8; export with"),
        (
            "infer.py",
            ["--labels", "folders"],
            "LICENSE in no folder named as a class of the model (red, green",
        ),
        (
            "infer.py",
            ["--eval_image_size", "64"],
            "of an export: --eval_image_size 64; its card has all settings",
        ),
        ("export.py", ["--export_batch_size", "8,x"], "export_batch_size: 8,x given, allowed: whole numbers"),
        ("export.py", ["--input", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_a_wrong_call_of_a_door_is_one_line(door, exported, script, arguments, message):
    words = (
        ["LICENSE", "--model_path", exported["folder"]]
        if script == "infer.py"
        else ["--checkpoint_path", "x"]
    )
    assert message in error_of(door(script, *words, *arguments))


@without_lite
def test_lite_where_it_is_not_installed(door, exported):
    done = door("infer.py", "LICENSE", model_path=exported["folder"], backend="lite")
    assert "mindspore_lite, which is not installed here; install its wheel from https" in error_of(done)
