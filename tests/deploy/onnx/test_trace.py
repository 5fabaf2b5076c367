# SPDX-License-Identifier: Apache-2.0
"""What is read of the operators that MindSpore exports."""

import os
import tempfile

import numpy as np
import pytest
from onnx import TensorProto

from src.deploy.onnx import trace as module
from src.deploy.onnx.trace import TRACED_BATCH, trace
from src.layers.pixels import Pixels
from tests.deploy.onnx.conftest import Embedding


def test_a_folder_for_temporary_files_with_a_space_in_its_name(monkeypatch, tmp_path):
    """Old: MindSpore refused its name, and so every export. What a killed export left there is removed."""
    (tmp_path / "a b\u00e9").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a b\u00e9"))
    how = Embedding(4, 0), (16, 16, 3), np.uint8, Pixels((1, 2, 3), (4, 5, 6))
    if (child := os.fork()) == 0:
        module.export_graph = lambda *_, **__: os._exit(7)
        trace(*how)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(os.listdir(tempfile.tempdir)) == 1
    assert trace(*how).nodes and not os.listdir(tempfile.tempdir)


@pytest.mark.parametrize("split", [False, True])
def test_operators_constants_and_parameters(split, monkeypatch):
    """Also where the weights stand apart, as MindSpore has it from 1 GiB on."""

    def export(model, images, path, **how):
        really(model, images, path, **how)
        if split:
            path.rename(path.with_name("traced_graph.mindir"))

    really = module.export_graph
    monkeypatch.setattr(module, "export_graph", export)
    traced = trace(Embedding(4, 0), (16, 16, 3), np.uint8, Pixels((1, 2, 3), (4, 5, 6)))
    assert (traced.image_shape, traced.image_type) == ((TRACED_BATCH, 16, 16, 3), TensorProto.UINT8)
    assert set(traced.parameters.values()) == {
        "conv.weight", "norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance",
        "head.weight", "head.bias",
    }  # fmt: skip
    nodes = {node.operator: node for node in traced.nodes}
    known = {**traced.constants, **traced.parameters}
    mean = known[nodes["Sub"].inputs[1]]
    assert mean.dtype == np.float32 and mean.tolist() == [1, 2, 3]
    assert known[nodes["Transpose"].inputs[1]] == (0, 3, 1, 2)
    assert [known.get(one) for one in nodes["BatchNorm"].inputs[5:7]] == [False, pytest.approx(1e-5)]
    how = nodes["Conv2D"].attributes
    assert (how["pad_mode"], how["pad"], how["kernel_size"]) == ("pad", (1, 1, 1, 1), (3, 3))
    assert nodes["Conv2D"].shapes == ((TRACED_BATCH, 8, 16, 16),) and nodes["Conv2D"].types == (1,)
    assert [node.operator for node in traced.nodes].count("Conv2D") == 1
    made = {node.output for node in traced.nodes}
    assert all(one in made or one in known or one == traced.images for n in traced.nodes for one in n.inputs)
