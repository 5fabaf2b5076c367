# SPDX-License-Identifier: Apache-2.0
"""An int8 export: which pictures calibrate it, which are compared, and what is refused."""

import argparse
import json

import mindspore as ms
import numpy as np
import onnx
import pytest
from PIL import Image

from src.common.errors import UserError
from src.deploy.backends import open_predictor
from src.deploy.export import export_model, output_folder
from src.deploy.export_flags import add_export_flags, export_choices, find_calibration
from src.deploy.onnx.calibration import Calibration, quantise_file
from src.deploy.onnx.metadata import read_card
from src.deploy.render import render_export
from tests.deploy.onnx.conftest import Embedding
from tests.helpers.pictures import smooth

CLASSES = ("ant", "bee", "cat", "dog")


def draw(folder, count, names=CLASSES):
    for number in range(count):
        of_class = folder / names[number % len(names)]
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(20, 24, number)).save(of_class / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures"), 120)


@pytest.fixture
def copied(export, tmp_path):
    """A float32 file that may be changed, and the same, opened."""
    path = tmp_path / "model.onnx"
    path.write_bytes((export[1] / "model.onnx").read_bytes())
    return path, open_predictor(export[1])


def test_the_file_becomes_int8_and_is_compared(copied, pictures):
    path, float32 = copied
    size = path.stat().st_size
    found = quantise_file([path], float32, Calibration.find(pictures, CLASSES))
    assert found["passed"] and found["calibration"]["images"] == 60
    assert found["compared"]["images"] == 60 and found["compared"]["agree"] >= 59
    assert found["accuracy"].keys() == {"float32", "int8"}
    assert found["bytes"] == {"float32": size, "int8": path.stat().st_size}
    assert {t.data_type for t in onnx.load(path).graph.initializer} >= {onnx.TensorProto.INT8}
    assert read_card(path) == float32.card.model_copy(update={"files": {}})
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    assert open_predictor(path).logits(np.zeros((2, *float32.card.image_shape))).shape == (2, 4)


def test_no_picture_both_calibrates_and_is_compared(pictures):
    found = Calibration.find(pictures, CLASSES, images=50)
    used, others = ({one.file for one in some} for some in (found.calibrating, found.compared))
    assert (len(used), len(others)) == (50, 70) and not used & others
    assert {one.label for one in found.calibrating} == {0, 1, 2, 3}
    again = Calibration.find(pictures, CLASSES, images=50)
    assert [one.file for one in again.calibrating] == [one.file for one in found.calibrating]


def test_without_labels_there_is_no_accuracy(copied, tmp_path):
    folder = draw(tmp_path / "unknown", 100, names=("wolf",))
    found = quantise_file([copied[0]], copied[1], Calibration.find(folder, CLASSES))
    assert found["accuracy"] is None and found["compared"]["images"] == 50


class TestRefused:
    @pytest.mark.parametrize("count", [1, 99])
    def test_too_few(self, count, tmp_path):
        draw(tmp_path / "few", count)
        with pytest.raises(UserError, match=f"few has {count} of the 100 needed pictures"):
            Calibration.find(tmp_path / "few", CLASSES)

    def test_none(self, tmp_path):
        with pytest.raises(UserError, match=str(tmp_path)):
            Calibration.find(tmp_path, CLASSES)

    def test_too_few_images_asked_for(self, pictures):
        with pytest.raises(UserError, match="calibration_images: 49 given, allowed: a whole number >= 50"):
            Calibration.find(pictures, CLASSES, images=49)

    def test_damaged_ones_do_not_count(self, copied, tmp_path):
        folder = draw(tmp_path / "damaged", 110)
        calibration = Calibration.find(folder, CLASSES)
        for example in [*calibration.calibrating[:5], *calibration.compared[:5]]:
            (folder / example.file).write_bytes(b"damaged")
        found = quantise_file([copied[0]], copied[1], calibration)
        assert len(found["calibration"]["skipped"]) == len(found["compared"]["skipped"]) == 5
        assert found["calibration"]["images"] == found["compared"]["images"] == 50
        (folder / calibration.calibrating[5].file).write_bytes(b"damaged")
        with pytest.raises(UserError, match=r"49 different pictures .* \(6 cannot, as .*50 are needed"):
            quantise_file([copied[0]], copied[1], calibration)

    def test_damaged_ones_are_not_compared(self, copied, tmp_path):
        folder = draw(tmp_path / "damaged", 100)
        calibration = Calibration.find(folder, CLASSES)
        (folder / calibration.compared[7].file).write_bytes(b"damaged")
        with pytest.raises(UserError, match=r"49 pictures that can be read, to be compared \(1 cannot"):
            quantise_file([copied[0]], copied[1], calibration)

    def test_copies_of_one_picture(self, copied, tmp_path):
        for number in range(100):
            Image.new("RGB", (20 + number, 24), (10, 200, 30)).save(tmp_path / f"{number}.png")
        with pytest.raises(UserError, match="1 different pictures"):
            quantise_file([copied[0]], copied[1], Calibration.find(tmp_path, CLASSES))


class TestExport:
    def export(self, network, folder, card, pictures, **how):
        calibration = Calibration.find(pictures, card.class_names)
        return export_model(network, folder, card=card, calibration=calibration, **how)

    def test_the_folder_holds_int8_and_says_so(self, card, pictures, tmp_path):
        folder = tmp_path / "net"
        report = self.export(Embedding(4, 0), folder, card, pictures, file_format="ONNX")
        assert report == json.loads((folder / "parity.json").read_text())
        assert report["compute_type"] == "int8" and report["passed"] and report["file"]["passed"]
        assert (
            report["bytes"]
            == (folder / "model.onnx").stat().st_size
            == report["quantisation"]["bytes"]["int8"]
        )
        assert open_predictor(folder).embeddings(np.zeros((1, 3, 16, 16), np.float32)).shape == (1, 8)
        text = render_export(report)
        assert "int8 inside" in text and "60 other pictures" in text and "accuracy" in text

    def test_what_int8_cannot_hold_is_refused(self, card, pictures, tmp_path):
        """One channel, which the classifier does not look at, makes the steps of all too coarse."""
        network = Embedding(4, 0)
        for parameter, place in ((network.conv.weight, 0), (network.head.weight, (slice(None), 0))):
            values = parameter.asnumpy().copy()
            values[place] *= 1e4 if parameter is network.conv.weight else 0
            parameter.set_data(ms.Tensor(values))
        how = (network, tmp_path / "net", card, pictures)
        with pytest.raises(UserError, match=r"int8 has the class of float32 .*98%.*--accept_difference"):
            self.export(*how, file_format="ONNX")
        assert not (tmp_path / "net").exists()
        report = self.export(*how, file_format="ONNX", accept_difference=True)
        assert not report["passed"] and "98%, accepted" in render_export(report)

    def test_other_formats(self, card, pictures, tmp_path):
        with pytest.raises(UserError, match=r"quantise: MINDIR .* --file_format ONNX"):
            self.export(Embedding(4, 0), tmp_path / "net", card, pictures)

    def test_networks_of_signs(self, card, pictures, tmp_path):
        network = Embedding(4, 0)
        network.conv.input_bits = 1
        with pytest.raises(UserError, match="quantise: small is a 1-bit network"):
            self.export(network, tmp_path / "net", card, pictures, file_format="ONNX")

    def test_networks_in_float16(self, card, pictures, tmp_path):
        how = {"file_format": "ONNX", "to_float16": lambda network: network}
        with pytest.raises(UserError, match=r"quantise: int8 is made of a float32 network.*--amp_level O0"):
            self.export(Embedding(4, 0), tmp_path / "net", card, pictures, **how)


def parsed(*words):
    flags = argparse.ArgumentParser()
    add_export_flags(flags)
    return flags.parse_args(["--file_format", "ONNX", *words])


def test_flags_that_need_each_other(pictures, card, capsys, tmp_path):
    with pytest.raises(UserError, match="no --calibration"):
        export_choices(parsed("--quantise", "int8"))
    with pytest.raises(UserError, match="quantise: int8 is made of a folded network; leave --fold false out"):
        export_choices(parsed("--quantise", "int8", "--calibration", "photos", "--fold", "false"))
    for flag, value in (("calibration", "photos"), ("calibration_images", "64")):
        with pytest.raises(UserError, match=f"{flag}: {value} given, .* --quantise int8"):
            export_choices(parsed(f"--{flag}", value))
    flags = parsed("--quantise", "int8", "--calibration", str(pictures), "--calibration_images", "55")
    choices = export_choices(flags)
    calibration = find_calibration(flags, CLASSES)
    assert len(calibration.calibrating) == 55 and "120 pictures" in capsys.readouterr().err
    folder = output_folder(
        None, checkpoint=tmp_path / "a.ckpt", card=card, calibration=calibration, **choices
    )
    assert folder.name == "small_onnx_int8"
    assert find_calibration(parsed(), CLASSES) is None
