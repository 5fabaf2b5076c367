# SPDX-License-Identifier: Apache-2.0
"""Every family exports at every precision: folding is compared in float32, the file in its own precision."""

import itertools
from functools import partial

import mindspore as ms
import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import TensorProto

from src.deploy.card import ModelCard
from src.deploy.export import export_model
from src.deploy.mindir import _read_proto
from src.training.keys import AMP_LEVELS
from src.training.precision import set_precision
from tests.training.test_train_step_families import FAMILIES, recipe_of

# The same layers as others in another order: at one precision.
ONCE = {"cifar resnet", "vgg", "bireal port", "bireal bottleneck", "multigrain triplet"}
SLOW = {"bireal bottleneck", "multigrain triplet"}
CASES = [
    pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW else [])
    for case in itertools.product(FAMILIES, AMP_LEVELS)
    if case[0] not in ONCE or case[1] == "O2"
]


def as_trained(network, seed=0):
    """With running statistics, and a classifier that is not 0, as training leaves them."""
    rng = np.random.default_rng(seed)
    ranges = {"moving_mean": (-0.3, 0.3), "moving_variance": (0.5, 2), "head.conv.weight": (-0.1, 0.1)}
    for parameter in network.get_parameters():
        for name, (low, high) in ranges.items():
            if parameter.name.endswith(name):
                values = rng.uniform(low, high, parameter.shape)
                parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return network


@pytest.mark.parametrize(("family", "level"), CASES)
def test_exports(graph_mode, data_path, tmp_path, family, level):
    recipe = recipe_of(family, data_path, amp_level=level, eval_image_size=32)
    how = recipe.preparation
    card = ModelCard(model="net", class_names=tuple("abcd"), preparation=how)
    side = how.image_size
    real = np.random.default_rng(1).normal(size=(12, 3, side, side)).astype(np.float32)
    half = None if level == "O0" else partial(set_precision, level=level)
    report = export_model(
        as_trained(recipe.network(num_classes=4)), tmp_path / "net", card=card, batch_sizes=[4],
        to_float16=half, real_images=real,
    )  # fmt: skip
    assert report["passed"] and report["top1_agreement"]["images"] == 12
    assert report["top1_agreement"]["agree"] >= 11
    assert (
        report["file"]["limit"] == (1e-5 if level == "O0" else 2e-2) and report["file"]["largest_logit"] > 0
    )
    assert report["folding"]["relative_difference"] < 1e-5
    graph = _read_proto(tmp_path / "net" / "model.mindir").graph
    convolutions = {
        node.attribute[0].tensors[0].data_type
        for node in graph.node
        if node.op_type.startswith("REF::Conv2D")
    }
    assert convolutions == {TensorProto.FLOAT if level == "O0" else TensorProto.FLOAT16}
