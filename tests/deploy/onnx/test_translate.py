# SPDX-License-Identifier: Apache-2.0
"""Every family and variant as an ONNX model: the same answers at any batch size, and no waste."""

from collections import Counter

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from src.common.errors import UserError
from src.data.preparation import Preparation
from src.deploy.card import ModelCard
from src.deploy.onnx.trace import TRACED_BATCH, Node, Traced
from src.deploy.onnx.translate import to_onnx, translate
from src.layers.device import use_plain_operators
from src.layers.inference import LogitsAndEmbedding
from src.training.precision import set_precision
from src.zoo import create_network

BLOCKS = {"block_units": (1, 1, 1, 1), "widths": (8, 8, 16, 16)}
BIT = {"block_units": (1, 1, 1, 1), "width_factor": 0.5, "pretrained_head": "replace"}
RESNET9 = {"widths": (4, 4, 8, 8)}
CASES = [
    ("resnet9", 40, {"pool_before_norm": True, **RESNET9}),
    ("resnet9", 8, {"activation": "celu", "celu_alpha": 0.3, **RESNET9}),
    ("resnet9", 32, {"activation": "gelu", "input_whitening": "airbench", **RESNET9}),
    ("resnet9", 33, {"activation": "silu", "input_whitening": "dawnbench", "norm_scale": "fixed", **RESNET9}),
    ("resnet9", 32, {"activation": "ste_sign", **RESNET9}),
    ("cifarnet", 32, {"widths": (4, 8, 8), "group_convs": 3, "skip_unpooled": True}),
    ("resnet20", 32, {"width_factor": 0.25, "stage_blocks": 1}),
    ("vgg11", 32, {"width_factor": 1 / 16, "pool_before_norm": True, "input_whitening": "dawnbench"}),
    ("bit_r50x1", 64, {"stride_padding": "same", **BIT}),
    ("birealnet18", 64, BLOCKS),
    ("birealnet18", 64, {"activation": "leaky_clip", "binary_weights": False, **BLOCKS}),
    ("birealnet50", 64, {"clip_after_add": True, "head_norm": True, "stem": "small", **BLOCKS}),
    ("multigrain_resnet18", 72, {"eval_pooling_exponent": 2.5, **BLOCKS}),
    ("multigrain_resnet50", 64, {"pooling_exponent": "max", "stem": "small", **BLOCKS}),
    ("multigrain_resnet18", 64, {"learn_pooling_exponent": True, "whitening_dim": 6, **BLOCKS}),
]


def filled(name, **arguments):
    """A network of 5 classes in which no normalisation is the identity and no running mean is 0."""
    network = create_network(name, num_classes=5, **arguments).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim < 2 and parameter.name != "pool.p":
            values = rng.normal(size=parameter.shape) * 0.3
            values = np.abs(values) + 0.5 if parameter.name.endswith("variance") else values
            parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return network


def card_of(side, input_type="float32"):
    preparation = Preparation(side, (125.0, 123.0, 114.0), (63.0, 62.0, 66.5))
    return ModelCard(model="m", class_names=tuple("abcde"), preparation=preparation, input_type=input_type)


def answers(network, images):
    return [one.astype(ms.float32).asnumpy() for one in LogitsAndEmbedding(network)(ms.Tensor(images))]


def check(model, images, expected, limit=1e-5):
    """One file at three batch sizes, as a share of the largest value."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 3, len(images)):
        found = session.run(["logits", "embedding"], {"images": images[:count]})
        for one, other in zip(found, expected, strict=True):
            assert one.shape == (count, *other.shape[1:]) and one.dtype == np.float32
            assert np.abs(other).max() > 0
            np.testing.assert_allclose(one, other[:count], rtol=0, atol=limit * np.abs(other).max())


@pytest.mark.parametrize(
    ("name", "side", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else None
)
def test_variants(name, side, arguments):
    network = filled(name, **arguments)
    images = np.random.default_rng(1).normal(size=(32, 3, side, side)).astype(np.float32)
    expected = answers(network, images)
    network.fold()
    use_plain_operators(network)
    model = to_onnx(network, card_of(side))
    check(model, images, expected)
    weights = {p.name for p in network.get_parameters() if p.ndim > 1}
    given = [tensor.name for tensor in model.graph.initializer]
    assert weights <= set(given) and len(given) == len(set(given))
    operators = Counter(node.op_type for node in model.graph.node)
    convolutions = sum(p.ndim == 4 for p in network.get_parameters())
    assert operators["Conv"] == convolutions  # the trunk of both outputs stands there once
    if "stage_blocks" in arguments:
        assert operators.pop("Pad") == 2  # the new channels of two shortcuts without parameters
    assert (
        not operators.keys() & {"Identity", "Cast", "Slice", "Concat", "Pad"} or "whitening_dim" in arguments
    )


@pytest.mark.parametrize(("name", "side"), [("birealnet18", 32), ("bit_r50x1", 40)])
def test_an_unfolded_network_has_its_used_weights(name, side):
    """Signs with their scale, and standardised weights, are computed once and for all."""
    network = filled(name, **(BLOCKS if name == "birealnet18" else BIT))
    images = np.random.default_rng(1).normal(size=(4, 3, side, side)).astype(np.float32)
    expected = answers(network, images)
    use_plain_operators(network)
    model = to_onnx(network, card_of(side))
    check(model, images, expected)
    shapes = {p.name: tuple(p.shape) for p in network.get_parameters()}
    given = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {key: shape for key, shape in given.items() if key in shapes}.items() <= shapes.items()
    assert all(node.input[1] in shapes for node in model.graph.node if node.op_type == "Conv")


def test_float16():
    network = filled("multigrain_resnet18", whitening_dim=6, **BLOCKS)
    images = np.random.default_rng(1).normal(size=(4, 3, 64, 64)).astype(np.float32)
    network.fold()
    set_precision(network, "O2")
    model = to_onnx(network, card_of(64))
    check(model, images, answers(network, images), limit=2e-2)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "layer1.0.conv1.weight")
    assert weight.data_type == TensorProto.FLOAT16


N, FLOAT = TRACED_BATCH, TensorProto.FLOAT


def traced(*nodes, **constants):
    """A list of operators of the input (N, 4), whose last value is both answers."""
    last = nodes[-1]
    pair = Node("MakeTuple", (last.output, last.output), "pair", {}, (last.shapes * 2), (FLOAT, FLOAT))
    return Traced([*nodes, pair], constants, {}, "images", (N, 4), FLOAT, "pair")


def one(operator, *inputs, shape=(N, 4), output="y"):
    return Node(operator, inputs, output, {}, (shape,), (FLOAT,))


def test_an_operator_that_the_table_lacks():
    with pytest.raises(UserError, match=r"m has MindSpore's operator Cholesky, which is not translated to"):
        translate(traced(one("Cholesky", "images")), {}, name="m")


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([one("Add", "images", "c")], {"c": np.arange(4 * N, dtype=np.float32).reshape(N, 4)}),
        ([one("Mul", "images", "c")], {"c": np.ones((N, 1), np.float32)}),
        ([one("Concat", "parts", "axis", shape=(N, 5))], {"parts": None, "axis": 1}),
        (
            [one("Reshape", "images", "s", shape=(4 * N,)), one("Reshape", "y", "t", output="z")],
            {"s": (-1,), "t": (N, 4)},
        ),
    ],
)
def test_the_batch_size_of_the_trace_does_not_survive(nodes, constants):
    if "parts" in constants:
        parts = ("images", np.arange(N, dtype=np.float32).reshape(N, 1))
        constants = {"axis": 1, "c": parts[1]}
        nodes = [one("MakeTuple", "images", "c", output="parts"), *nodes]
    with pytest.raises(UserError, match=r"the batch size of the trace is still in it|not valid as ONNX"):
        translate(traced(*nodes, **constants), {}, name="m")
