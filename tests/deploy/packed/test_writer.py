# SPDX-License-Identifier: Apache-2.0
"""A network's ONNX graph becomes a program of the same answers, or is refused by what cannot be packed."""

import mindspore as ms
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from src.common.errors import UserError
from src.data.preparation import Preparation
from src.deploy.card import ModelCard
from src.deploy.onnx.translate import to_onnx
from src.deploy.packed.program import LOGITS
from src.deploy.packed.writer import program_from_onnx
from src.layers.binary import BinaryConv2d
from src.layers.device import use_plain_operators
from src.zoo import create_network
from tests.helpers.packed import interpret, pack, unpack

SIDE = 64
NETWORKS = {
    "basic blocks": ("birealnet18", {"block_units": (2, 1, 1, 1), "widths": (8, 70, 8, 8), "stem": "small"}),
    "bottlenecks": ("birealnet50", {"block_units": (1, 2, 1, 1), "widths": (8, 8, 24, 8)}),
    "an earlier port": (
        "birealnet18",
        {
            "block_units": (1, 1, 1, 1),
            "widths": (8, 8, 16, 16),
            "weight_gradient": "scaled_identity",
            "divide_by_deviation": True,
            "clip_after_add": True,
            "head_norm": True,
        },
    ),
}


def made(kind: str, **more):
    """A network of 5 classes in which no normalisation is the identity."""
    name, arguments = NETWORKS[kind]
    network = create_network(name, num_classes=5, **arguments, **more).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim < 2:
            values = rng.normal(size=parameter.shape) * 0.3
            values = np.abs(values) + 0.5 if parameter.name.endswith("variance") else values
            parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return network


def translated(network) -> onnx.ModelProto:
    preparation = Preparation(SIDE, (125.0, 123.0, 114.0), (63.0, 62.0, 66.5))
    use_plain_operators(network)
    return to_onnx(network, ModelCard(model="net", class_names=tuple("abcde"), preparation=preparation))


@pytest.mark.parametrize("kind, fold", [*((kind, True) for kind in NETWORKS), ("basic blocks", False)])
def test_a_network_and_its_program_agree(kind, fold):
    network = made(kind)
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(4, 3, SIDE, SIDE)).astype(np.float32)]
    if kind == "bottlenecks":  # other sides, which are odd behind the stem, where the graph's are even
        images.append(rng.normal(size=(1, 3, 62, 94)).astype(np.float32))
    convolutions = [cell for _, cell in network.cells_and_names() if isinstance(cell, BinaryConv2d)]
    signs = sorted(pack(cell.weight.asnumpy() >= 0).tobytes() for cell in convolutions)
    expected = [network(ms.Tensor(some)).asnumpy() for some in images]
    if fold:
        network.fold()
    program = program_from_onnx(translated(network))
    for some, answer in zip(images, expected, strict=True):
        found = interpret(program, some)[LOGITS]
        np.testing.assert_allclose(found, answer, atol=1e-5 * np.abs(answer).max())
    binary = [step for step in program.steps if step.kind == "binary_convolution"]
    assert sorted(step.arrays["bits"].tobytes() for step in binary) == signs
    assert all(len(step.inputs) == 2 for step in binary), "an addition is left beside a convolution"
    kinds = {step.kind for step in program.steps}
    assert "add" not in kinds and ("affine" in kinds) == (kind == "an earlier port")


def test_a_real_valued_twin_is_refused():
    with pytest.raises(
        UserError, match=r"^file_format: PACKED .* 1-bit .* in net, no convolution takes signs"
    ):
        program_from_onnx(translated(made("basic blocks", activation="clip", binary_weights=False)))


SIGN = [
    helper.make_node("GreaterOrEqual", ["images", "zero"], ["positive"]),
    helper.make_node("Where", ["positive", "one", "minus"], ["signs"]),
]
HEAD = [
    helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["features"]),
    helper.make_node("Gemm", ["features", "matrix"], ["logits"], transB=1),
]
RNG = np.random.default_rng(0)
PLUS_MINUS = np.where(RNG.random((4, 3, 3, 3)) < 0.5, -1, 1)
CONSTANTS = {
    "zero": 0.0,
    "one": 1.0,
    "minus": -1.0,
    "half": 0.5,
    "filters": PLUS_MINUS,
    "of channels": RNG.normal(size=(4, 1, 1)),
    "of pixels": RNG.normal(size=(8, 8)),
    "real": RNG.normal(size=(4, 3, 3, 3)),
    "matrix": RNG.normal(size=(5, 4)),
}
AXES = numpy_helper.from_array(np.array([2]), "rows")


def graph_of(*nodes: onnx.NodeProto, constants=CONSTANTS) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])
    tensors = [numpy_helper.from_array(np.float32(array), name) for name, array in constants.items()]
    graph = helper.make_graph([*nodes], "net", [images], [logits], [*tensors, AXES])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def conv(source: str, weight: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [output], pads=[1, 1, 1, 1], **attributes)


def pool(source: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node("MaxPool", [source], [output], kernel_shape=[3, 3], strides=[2, 2], **attributes)


def test_scales_and_offsets_go_into_the_convolution():
    nodes = [
        *SIGN,
        conv("signs", "filters", "c"),
        helper.make_node("Mul", ["of channels", "c"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "half"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "half"], ["x"]),
        *HEAD,
    ]
    step = program_from_onnx(graph_of(*nodes)).steps[0]
    scales = CONSTANTS["of channels"].reshape(-1) * 0.5
    assert step.kind == "binary_convolution" and step.inputs == ("images",)
    np.testing.assert_allclose(step.arrays["multiply"], scales, rtol=1e-6)
    np.testing.assert_allclose(step.arrays["add"], -0.25)
    assert (unpack(step.arrays["bits"], 3) == PLUS_MINUS).all()


def test_weights_of_one_size_in_each_filter_are_signs_with_a_scale():
    scales = np.array([1, 2, 0.5, 0]).reshape(-1, 1, 1, 1)
    filters = {**CONSTANTS, "filters": PLUS_MINUS * scales}
    step = program_from_onnx(graph_of(*SIGN, conv("signs", "filters", "x"), *HEAD, constants=filters)).steps[
        0
    ]
    assert step.arrays["multiply"].tolist() == [1, 2, 0.5, 0]
    assert (unpack(step.arrays["bits"], 3)[:3] == PLUS_MINUS[:3]).all()


def test_what_two_take_is_not_changed():
    """An offset behind one of two users of a convolution is a step of its own."""
    nodes = [
        *SIGN,
        conv("signs", "filters", "c"),
        helper.make_node("Add", ["c", "of channels"], ["a"]),
        helper.make_node("Add", ["c", "a"], ["x"]),
        *HEAD,
    ]
    program = program_from_onnx(graph_of(*nodes))
    assert [step.kind for step in program.steps] == ["binary_convolution", "affine", "add", "mean", "dense"]
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    values = interpret(program, images)
    sums = 2 * values["filters"] + CONSTANTS["of channels"]
    np.testing.assert_allclose(
        values[LOGITS], sums.mean((2, 3)) @ CONSTANTS["matrix"].T, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "nodes, reason",
    [
        ([conv("images", "filters", "x")], "no convolution takes signs"),
        ([*SIGN, conv("signs", "real", "x")], "the weights of real are real numbers"),
        ([*SIGN, helper.make_node("Relu", ["signs"], ["r"]), conv("r", "filters", "x")], "operator Relu"),
        ([*SIGN, conv("signs", "filters", "x", strides=[2, 1])], "operator Conv"),
        ([*SIGN, conv("signs", "filters", "x", dilations=[2, 2])], "operator Conv"),
        (
            [*SIGN, helper.make_node("Conv", ["signs", "filters"], ["x"], auto_pad="SAME_UPPER")],
            "operator Conv",
        ),
        (
            [
                *SIGN,
                conv("signs", "filters", "c"),
                helper.make_node("GreaterOrEqual", ["c", "zero"], ["p"]),
                helper.make_node("Where", ["p", "one", "minus"], ["signs of c"]),
                conv("signs", "filters", "d"),
                helper.make_node("Add", ["d", "signs of c"], ["x"]),
            ],
            "what the operator Add .* takes, signs of c",
        ),
        (
            [
                *SIGN,
                conv("signs", "filters", "c"),
                helper.make_node("ReduceMean", ["c", "rows"], ["x"], keepdims=1),
            ],
            "operator ReduceMean",
        ),
        (
            [*SIGN, conv("signs", "filters", "c"), helper.make_node("Mul", ["c", "c"], ["x"])],
            "operator Mul .* of two values",
        ),
        (
            [*SIGN, conv("signs", "filters", "c"), helper.make_node("Mul", ["c", "of pixels"], ["x"])],
            "operator Mul",
        ),
        (
            [
                *SIGN,
                conv("signs", "filters", "c"),
                helper.make_node("Clip", ["c", "minus", "one"], ["clipped"]),
                helper.make_node("Sub", ["c", "clipped"], ["beyond"]),
                helper.make_node("Add", ["c", "beyond"], ["x"]),
            ],
            "what the operator Add .* takes, beyond",
        ),
        (
            [*SIGN, conv("signs", "filters", "c"), pool("c", "x", pads=[0, 0, 1, 1])],
            "operator MaxPool",
        ),
        (
            [
                helper.make_node("GreaterOrEqual", ["images", "half"], ["positive"]),
                SIGN[1],
                conv("signs", "filters", "x"),
            ],
            "operator GreaterOrEqual",
        ),
    ],
)
def test_what_cannot_be_packed_is_named(nodes, reason):
    with pytest.raises(UserError, match=f"^file_format: PACKED .*; in net, .*{reason}.*; use ONNX$"):
        program_from_onnx(graph_of(*nodes, *HEAD))
