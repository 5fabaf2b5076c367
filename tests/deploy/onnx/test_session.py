# SPDX-License-Identifier: Apache-2.0
"""onnxruntime, and what it is given that is not ours."""

import sys

import numpy as np
import onnx
import pytest

from src.common.errors import UserError
from src.deploy.formats import ANY_BATCH
from src.deploy.onnx.session import open_onnx


def test_what_a_file_takes_and_gives(export, card):
    opened = open_onnx(export[1] / "model.onnx", threads=1)
    given = export[2]["input_type"]
    card = card.model_copy(update={"input_type": given})
    assert opened.input_shape == (ANY_BATCH, *card.image_shape) and opened.input_type == given
    assert opened.output_shape == (ANY_BATCH, 4)
    images = np.zeros((2, *card.image_shape), card.image_dtype)
    assert opened.run(images).shape == (2, 4) and opened.embed(images).shape == (2, 8)
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot run this file \("):
        opened.run(images[:, 1:])


def test_files_that_it_cannot_use(export, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"x\.onnx: onnxruntime cannot load this file \("):
        open_onnx(path)
    model = onnx.load(export[1] / "model.onnx")
    for node in model.graph.node:
        node.input[:] = ["pictures" if one == "images" else one for one in node.input]
    model.graph.input[0].name = "pictures"
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"x\.onnx: not an image classifier of ours \(inputs \['pictures'\]"):
        open_onnx(path)


def test_a_missing_package(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime is not installed here; pip install onnxruntime"):
        open_onnx(export[1] / "model.onnx")
