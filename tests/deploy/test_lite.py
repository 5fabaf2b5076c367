# SPDX-License-Identifier: Apache-2.0
"""MindSpore Lite's backend, with a package in its place that runs the files by MindSpore."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy import lite
from src.deploy.backends import open_predictor
from src.deploy.export import export_model

STAND_IN = Path(__file__).parent / "lite_stand_in"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.syspath_prepend(str(STAND_IN))
    yield
    sys.modules.pop("mindspore_lite", None)


@pytest.fixture
def a_card(installed, monkeypatch, tmp_path):
    """Card 2 of the stand-in, and the driver's files for it."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "davinci2").touch()
    monkeypatch.setattr(lite, "_DEVICES", tmp_path / "dev")
    monkeypatch.setenv("STAND_IN_CARDS", "2")
    monkeypatch.setenv("DEVICE_ID", "2")


@pytest.fixture(scope="module", params=["float32", "uint8"])
def exported(make_network, card, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("exported") / "net"
    card = card.model_copy(update={"input_type": request.param})
    export_model(make_network(), folder, card=card, batch_sizes=[1, 4])
    return folder


def some_images(card):
    pixels = np.random.default_rng(3).integers(0, 256, (7, *card.image_shape))
    return pixels.astype(card.image_dtype)


def test_the_answers_are_those_of_mindspore(exported, installed):
    by_lite = open_predictor(exported, backend="lite", device_target="CPU")
    by_mindspore = open_predictor(exported, backend="mindspore", device_target="CPU")
    assert (by_lite.backend, by_lite.device) == ("lite", "CPU")
    images = some_images(by_lite.card)
    assert np.array_equal(by_lite.logits(images), by_mindspore.logits(images))
    assert [size for size, _ in by_lite.calls] == [4, 1, 1, 1]


def test_on_a_card(exported, a_card):
    predictor = open_predictor(exported, backend="lite")
    assert predictor.device == "Ascend"
    assert predictor.logits(some_images(predictor.card)).shape == (7, 4)


def test_another_card_than_there_is(exported, a_card, monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "3")
    with pytest.raises(UserError) as caught:
        open_predictor(exported, backend="lite", device_target="Ascend")
    assert str(caught.value).endswith(
        "model_b1.mindir: MindSpore Lite cannot load this file on Ascend 3 (build_from_file failed! Error is "
        "Common error code.); it must be as new as the MindSpore that exported; --backend mindspore runs the "
        "same file"
    )


def test_auto_is_lite_where_it_is_installed(exported, installed):
    assert open_predictor(exported, device_target="CPU").backend == "lite"


def test_auto_is_mindspore_where_it_is_not(exported, monkeypatch):
    monkeypatch.setattr(lite, "is_installed", lambda: False)
    assert open_predictor(exported, device_target="CPU").backend == "mindspore"


def test_auto_finds_no_card_here(tmp_path, monkeypatch):
    monkeypatch.setattr(lite, "_DEVICES", tmp_path)
    assert lite.choose_target("auto") == "CPU"


def test_a_missing_package_is_one_line_that_says_where_it_is(exported, monkeypatch):
    monkeypatch.setattr(lite, "is_installed", lambda: False)
    with pytest.raises(UserError) as caught:
        open_predictor(exported, backend="lite")
    message = str(caught.value)
    assert "\n" not in message and "mindspore_lite, which is not installed here" in message
    assert "mindspore.cn/lite" in message and "--backend mindspore runs the same file" in message


def test_a_package_that_cannot_be_imported(exported, tmp_path, monkeypatch):
    (tmp_path / "mindspore_lite.py").write_text("raise ImportError('libacl.so: cannot open\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be imported \(libacl\.so: cannot open\); .*set_env\.sh"):
        open_predictor(exported, backend="lite", device_target="CPU")


def test_a_damaged_file_is_found_before_lite_sees_it(exported, tmp_path, installed):
    folder = shutil.copytree(exported, tmp_path / "net")
    path = folder / "model_b4.mindir"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model_b4\.mindir: damaged or replaced"):
        open_predictor(folder, backend="lite", device_target="CPU")


def test_what_lite_cannot_run(exported, installed, monkeypatch):
    predictor = open_predictor(exported, backend="lite", device_target="CPU")
    import mindspore_lite

    def fail(self, inputs):
        raise RuntimeError("predict failed!")

    monkeypatch.setattr(mindspore_lite.Model, "predict", fail)
    with pytest.raises(UserError, match=r"_b1\.mindir: MindSpore Lite cannot run this .*predict failed!"):
        predictor.warm_up()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "onnx"}, "backend: 'onnx' given, allowed: one of auto, mindspore, lite, onnxruntime"),
        ({"backend": "lite", "device_target": "GPU"}, "device_target: GPU given, --backend lite runs on"),
    ],
)
def test_wrong_choices(exported, installed, keys, message):
    with pytest.raises(UserError, match=message):
        open_predictor(exported, **keys)


def test_mindspore_is_not_imported_for_lite():
    """So that a machine with Ascend 310 needs MindSpore Lite alone."""
    names = ("backends", "classify", "door", "examples", "lite", "render")
    code = "; ".join(f"import src.deploy.{name}" for name in names)
    code += "; import sys; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
