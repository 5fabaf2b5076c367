# SPDX-License-Identifier: Apache-2.0
"""The formats of an export: what is written by each, and that one is a row of a table."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.deploy import mindir
from src.deploy.export import export_model
from src.deploy.formats import FORMATS, Format
from src.deploy.predict import Opened
from tests.deploy.test_export import files_in, opened, with_


def test_mindir_in_either_case(make_network, card, tmp_path):
    report = export_model(make_network(), tmp_path / "net", file_format="mindir", card=card)
    assert report["passed"] and (tmp_path / "net" / "model.mindir").exists()


@pytest.mark.parametrize(
    ("file_format", "message"),
    [
        ("AIR", "AIR needs an Ascend device and this is CPU"),
        ("CAFFE", r"CAFFE given, allowed: MINDIR, ONNX, PACKED, AIR \(on Ascend\)"),
    ],
)
def test_refused(make_network, card, tmp_path, file_format, message):
    with pytest.raises(UserError, match=message):
        export_model(make_network(), tmp_path / "net", file_format=file_format, card=card)
    assert files_in(tmp_path) == {}


def test_a_format_is_one_row(make_network, card, images, tmp_path, monkeypatch):
    """Written, compared, found and run, and named in messages, by what the row says."""
    network = make_network()

    def write(cell, card, path):
        path.write_bytes(b"mine")
        return [path]

    def open_mine(path):
        assert path.read_bytes() == b"mine"
        run = mindir._as_function(network)
        return Opened(run, (2, 3, 16, 16), "float32", (2, 4))

    monkeypatch.setitem(FORMATS, "MINE", Format("MINE", ".mine", write=write, open=open_mine))
    folder = tmp_path / "net"
    report = export_model(network, folder, file_format="mine", card=card, batch_sizes=[2])
    assert report["passed"] and report["files"][0]["path"] == str(folder / "model.mine")
    expected = network(ms.Tensor(images)).asnumpy()
    for path in (folder, folder / "model.mine"):
        np.testing.assert_allclose(opened(path).logits(images), expected, rtol=1e-6)
    with pytest.raises(UserError, match=r"zip given, allowed: MINDIR, ONNX, PACKED, AIR \(on Ascend\), MINE"):
        export_model(network, folder, file_format="zip", card=card)


def test_air_on_ascend(make_network, card, tmp_path, monkeypatch):
    """With a stand-in for the device: what is written, in which mode, and under which names."""
    seen = []

    def export(network, images, *, file_name, file_format):
        seen.append((network.training, images.shape, images.dtype, file_format))
        Path(file_name).write_bytes(b"air")

    real_get = ms.get_context
    monkeypatch.setattr(ms, "get_context", lambda key: "Ascend" if key == "device_target" else real_get(key))
    monkeypatch.setattr(ms, "export", export)
    folder, typed = tmp_path / "net", with_(card, input_type="uint8")
    report = export_model(make_network(), folder, file_format="air", card=typed, batch_sizes=[8, 1])
    assert seen == [(False, (size, 16, 16, 3), ms.uint8, "AIR") for size in (1, 8)]
    assert sorted(files_in(folder)) == ["card.json", "model_b1.air", "model_b8.air", "parity.json"]
    assert report["passed"] is None and report["file"] is None and report["bytes"] == 6
    with pytest.raises(UserError, match="net: has no model that can be run here; export to MINDIR"):
        opened(folder)
