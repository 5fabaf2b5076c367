# SPDX-License-Identifier: Apache-2.0
"""--file_format PACKED: exported, compared, and run by infer.py without MindSpore."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.common.errors import UserError
from src.deploy.backends import open_predictor
from src.deploy.card import ModelCard
from src.deploy.export import export_model, output_folder
from src.deploy.export_flags import add_export_flags, export_choices
from src.deploy.formats import ANY_BATCH
from src.deploy.packed.backend import read_card
from src.layers.activation import activation
from src.layers.binary import BinaryConv2d, ScaledSign
from src.layers.conv import conv2d, dense
from src.layers.fold import fold_layers
from src.layers.init import initialise, torch_default
from src.layers.norm import batch_norm2d

ROOT = Path(__file__).parents[3]


class OneBit(nn.Cell):
    """A real convolution and a 1-bit one with a shortcut: (N, 3, 16, 16) -> (N, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=8, kernel_size=3, stride=2)
        self.sign = activation("approx_sign")
        self.binary_conv = BinaryConv2d(in_channels=8, out_channels=8, kernel_size=3, quantiser=ScaledSign())
        self.norm = batch_norm2d(channels=8)
        self.fc = dense(in_channels=8, out_channels=4)
        initialise(self, seed=0, weight=torch_default)

    def embed(self, x):
        x = self.conv(x)
        return (x + self.norm(self.binary_conv(self.sign(x)))).mean((2, 3))

    def construct(self, x):
        return self.fc(self.embed(x))

    def fold(self):
        fold_layers(self)


@pytest.fixture(scope="module", params=["float32", "uint8"])
def export(card, tmp_path_factory, request):
    """(folder, report, images as the file takes them, the network's logits)."""
    folder = tmp_path_factory.mktemp("packed") / "my net"
    network = OneBit()
    pixels = np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
    images = np.stack([card.preparation.normalise(image) for image in pixels])
    expected = network.set_train(False)(ms.Tensor(images)).asnumpy()
    card = card.model_copy(update={"input_type": request.param})
    report = export_model(network, folder, card=card, file_format="packed", real_images=images)
    return folder, report, images if request.param == "float32" else pixels, expected


def test_the_report_and_the_folder(export):
    folder, report, _, _ = export
    assert report["passed"] and report["file_format"] == "PACKED" and report["files"][0]["batch_size"] is None
    assert report["file"]["relative_difference"] < 1e-5
    assert report["top1_agreement"] == {"images": 7, "agree": 7}
    assert report["bytes"] == (folder / "model.packed").stat().st_size
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["card.json", "model.packed", "parity.json"]
    assert list(ModelCard.load(folder / "card.json").files) == [ANY_BATCH]


def test_the_file_alone_runs_as_the_folder_does(export, tmp_path):
    folder, _, images, expected = export
    lone = Path(shutil.copy(folder / "model.packed", tmp_path / "elsewhere.packed"))
    predictors = [open_predictor(folder), open_predictor(lone, threads=1, batch_size=2)]
    for predictor in predictors:
        assert (predictor.backend, predictor.device) == ("packed", "CPU")
        np.testing.assert_allclose(predictor.logits(images), expected, atol=1e-5 * np.abs(expected).max())
    assert predictors[0].batch_size == 32 and predictors[1].batch_size == 2
    assert predictors[1].card == read_card(folder / "model.packed")
    assert predictors[1].card == predictors[0].card.model_copy(update={"files": {}})


def test_a_damaged_file_is_refused_by_name(export, tmp_path):
    folder = Path(shutil.copytree(export[0], tmp_path / "net"))
    lone = tmp_path / "lone.packed"
    data = bytearray((folder / "model.packed").read_bytes())
    data[len(data) // 2] ^= 1
    for path in (folder / "model.packed", lone):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"^{path}: damaged"):
            open_predictor(path)


ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mindspore", "onnx", "onnxruntime"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
from infer import main
main(["--model_path", sys.argv[1], sys.argv[2], "--json"])
"""


def test_infer_needs_no_mindspore(export, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    words = [sys.executable, "-c", ALONE, str(export[0] / "model.packed"), str(tmp_path / "a.png")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0 and '"predictions"' in ended.stdout, ended.stderr


def test_float16_weights(card, tmp_path):
    network, options = OneBit(), {"real_weights": "float16"}
    with pytest.raises(UserError, match="file_format: PACKED computes in float32; give --amp_level O0"):
        export_model(network, tmp_path / "x", card=card, file_format="PACKED", to_float16=lambda n: n)
    report = export_model(
        network, tmp_path / "half", card=card, file_format="PACKED", options=options, accept_difference=True
    )
    assert report["file"]["relative_difference"] < 2e-2
    where = {"checkpoint": tmp_path / "a.ckpt", "card": card, "file_format": "PACKED", "options": options}
    assert output_folder(None, **where).name == "small_packed_float16"
    where["options"] = {"real_weights": "float32"}  # as without it
    assert output_folder(None, **where).name == "small_packed"


def test_flags_of_the_format():
    flags = argparse.ArgumentParser()
    add_export_flags(flags)
    chosen = export_choices(flags.parse_args(["--file_format", "packed", "--real_weights", "float16"]))
    assert chosen["options"] == {"real_weights": "float16"} and chosen["batch_sizes"] is None
    assert export_choices(flags.parse_args(["--file_format", "packed"]))["options"] == {}
    with pytest.raises(UserError, match="real_weights: given, which is for --file_format PACKED; leave"):
        export_choices(flags.parse_args(["--real_weights", "float16"]))
    with pytest.raises(UserError, match="export_batch_size: a file of PACKED takes any batch size"):
        export_choices(flags.parse_args(["--file_format", "PACKED", "--export_batch_size", "8"]))
