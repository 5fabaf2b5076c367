# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says of itself, and that one which changed is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest

from src.common.errors import UserError
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard
from src.deploy.export import export_model
from src.deploy.exported import read_export
from src.deploy.formats import ANY_BATCH, FORMATS
from src.deploy.onnx import metadata
from src.deploy.onnx.metadata import read_card, write_onnx
from src.deploy.onnx.session import open_onnx

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lone(export, tmp_path):
    """The model without the folder of its export."""
    return Path(shutil.copy(export[1] / "model.onnx", tmp_path / "elsewhere.onnx"))


def test_the_report_and_the_folder(export):
    _, folder, report = export
    assert report["passed"] and report["files"][0]["batch_size"] is None
    assert report["inputs"] == {"random": 8, "real": 7}
    assert report["file"]["limit"] == report["embedding"]["limit"] == 1e-4
    assert report["embedding"]["passed"] and report["embedding"]["largest_logit"] > 0.1
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["card.json", "model.onnx", "parity.json"]
    assert list(ModelCard.load(folder / "card.json").files) == [ANY_BATCH]


def test_an_embedding_that_differs_is_refused(export, card, tmp_path, monkeypatch):
    def other(path):
        opened = open_onnx(path)
        return replace(opened, embed=lambda batch: 1.001 * opened.embed(batch))

    monkeypatch.setitem(FORMATS, "ONNX", replace(FORMATS["ONNX"], open=other))
    with pytest.raises(UserError, match=r"not written: the file's embedding differs .* of its largest value"):
        export_model(export[0], tmp_path / "net", card=card, file_format="ONNX")
    assert not (tmp_path / "net").exists()


def test_people_and_programs_find_what_they_need(export, card):
    _, folder, report = export
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    says = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(says["class_names"]) == ["ant", "bee", "cat", "dog"]
    assert (json.loads(says["image_size"]), json.loads(says["mean"])) == (16, [125.0, 123.0, 114.0])
    assert says["model"] == "small" and report["input_type"] in says["input"] and "256" not in says["resize"]
    assert model.producer_name == "quartet" and "small, 4 classes" in model.doc_string
    (images,) = model.graph.input
    sides = [side.dim_param or side.dim_value for side in images.type.tensor_type.shape.dim]
    assert images.name == "images"
    assert sides == (["N", 3, 16, 16] if report["input_type"] == "float32" else ["N", 16, 16, 3])
    outputs = {
        one.name: [side.dim_param or side.dim_value for side in one.type.tensor_type.shape.dim]
        for one in model.graph.output
    }
    assert outputs == {"logits": ["N", 4], "embedding": ["N", 8]}


def test_a_lone_file_runs_as_the_folder_does(export, lone):
    network, folder, _ = export
    predictor = open_predictor(lone, batch_size=3)
    assert (predictor.backend, predictor.device, predictor.batch_size) == ("onnxruntime", "CPU", 3)
    whole = open_predictor(folder, threads=1)
    assert predictor.card == whole.card.model_copy(update={"files": {}})
    pixels = np.random.default_rng(3).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
    images = np.stack([whole.card.preparation.normalise(image) for image in pixels])
    given = pixels if whole.card.input_type == "uint8" else images
    for answer, own in (("logits", network), ("embeddings", network.embed)):
        expected = own(ms.Tensor(images)).asnumpy()
        for one in (predictor, whole):
            np.testing.assert_allclose(getattr(one, answer)(given), expected, rtol=1e-4, atol=1e-4)
    assert [size for size, _ in predictor.calls] == [3, 3, 1]


def test_every_kind_of_damage_is_refused(export, lone):
    data = lone.read_bytes()
    for place in (0, 9, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 70, len(data) - 1):
        lone.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(UserError, match=r"elsewhere\.onnx: damaged, changed since the export, or not"):
            read_export(lone)
    for length in (0, 50, len(data) // 2, len(data) - 1):
        lone.write_bytes(data[:length])
        with pytest.raises(UserError, match="damaged, changed"):
            read_export(lone)
    lone.write_bytes(data)
    assert read_export(lone).files == (lone,)


def test_a_file_of_others(lone, card, tmp_path):
    model = onnx.load(lone)
    model.graph.doc_string = "changed"
    for metadata_is_kept in (True, False):
        if not metadata_is_kept:
            del model.metadata_props[:]
        onnx.save(model, lone)
        with pytest.raises(UserError, match="changed since the export, or not written by"):
            read_card(lone)
    body = b"no protobuf"
    lone.write_bytes(body + metadata._seal(body))
    with pytest.raises(UserError, match=r"elsewhere\.onnx: not an ONNX file"):
        read_card(lone)
    body = model.SerializeToString()
    lone.write_bytes(body + metadata._seal(body))
    with pytest.raises(UserError, match=r"elsewhere\.onnx: damaged model card"):
        read_card(lone)


def test_a_changed_file_in_its_folder(export, tmp_path):
    folder = shutil.copytree(export[1], tmp_path / "net")
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.onnx: damaged or replaced: model\.onnx is not the file"):
        read_export(folder)


def test_a_lone_file_in_the_folder_of_another_export(export, lone):
    (lone.parent / "card.json").write_bytes((export[1] / "card.json").read_bytes())
    assert read_export(lone).files == (lone,)


def test_weights_above_the_limit_stand_beside_the_file(export, card, tmp_path, monkeypatch):
    """With a limit that this network is above."""
    model = onnx.load(export[1] / "model.onnx")
    monkeypatch.setattr(metadata, "LARGEST_FILE", 100)
    files = write_onnx(model, card, tmp_path / "model.onnx")
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert sum(file.stat().st_size for file in files[1:]) > 100
    onnx.checker.check_model(str(files[0]))
    whole = open_onnx(export[1] / "model.onnx")
    images = np.ones((2, *whole.input_shape[1:]), whole.input_type)
    assert np.array_equal(open_onnx(files[0]).run(images), whole.run(images))
    with pytest.raises(UserError, match="its weights stand in another file; leave it in the folder"):
        read_card(files[0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "mindspore"}, r"backend: mindspore given, and \.onnx is run by onnxruntime"),
        ({"backend": "lite"}, r"backend: lite given, and \.onnx is run by onnxruntime; .* export to MINDIR"),
        ({"device_target": "GPU"}, "device_target: GPU given, --backend onnxruntime runs on auto or CPU"),
        ({"threads": -1}, "threads: -1 given, allowed: a whole number from 0 to 1024"),
        ({"threads": 1025}, "threads: 1025 given, allowed: a whole number from 0 to 1024"),
        ({"batch_size": 0}, "batch_size: 0 is not a batch"),
    ],
)
def test_wrong_choices(lone, keys, message):
    with pytest.raises(UserError, match=message):
        open_predictor(lone, **keys)


def test_mindspore_is_not_needed(export, lone, tmp_path):
    """infer.py in an interpreter that cannot import it. Old: onnxruntime kept an ID of the device."""
    from PIL import Image

    Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / "red.png")
    code = (
        "import sys; sys.modules['mindspore'] = None; sys.argv[0] = 'infer.py'; import runpy; "
        "runpy.run_path('infer.py', run_name='__main__')"
    )
    words = ["--model_path", str(lone), "--json", str(tmp_path / "red.png")]
    home = tmp_path / "home"
    home.mkdir()
    variables = {**os.environ, **dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(home))}
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    words = [sys.executable, "-c", code, *words]
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir())
    found = json.loads(done.stdout)
    assert found["performance"]["backend"] == "onnxruntime"
    assert {one["class"] for one in found["results"][0]["predictions"]} == {"ant", "bee", "cat", "dog"}
