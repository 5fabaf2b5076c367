# SPDX-License-Identifier: Apache-2.0
"""Each operator of the table, alone and against numpy; traced for one batch size, run with another."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from src.common.errors import UserError
from src.deploy.onnx.builder import IR_VERSION, OPSET, Builder
from src.deploy.onnx.operators import OPERATORS
from src.deploy.onnx.trace import TRACED_BATCH, Node

N = TRACED_BATCH
FLOAT = TensorProto.FLOAT


class Traced:
    """A graph with the input `images`, to which MindSpore's operators are added one by one."""

    def __init__(self, shape=(3, 6, 8), kind=FLOAT, **parameters):
        self.b = Builder(parameters)
        self.images = helper.make_tensor_value_info("images", kind, ["N", *shape])
        self.b.shapes["images"], self.b.types["images"] = (N, *shape), kind

    def add(self, operator, *values, shape=None, kind=FLOAT, **attributes):
        """Returns the value; its shape is that of the first tensor, or the one that is given."""
        if shape is None:
            shape = next(self.b.shapes[value] for value in values if isinstance(value, str))
        node = Node(operator, (), "", attributes, (shape,), (kind,))
        made = OPERATORS[operator](self.b, node, *values)
        for one in made if isinstance(made, tuple) else (made,):
            if isinstance(one, str):
                self.b.shapes.setdefault(one, shape)
                self.b.types.setdefault(one, kind)
        return made

    def graph(self, out):
        return self.b.graph("g", self.images, {"out": out})[0]

    def run(self, out, images):
        graph = self.graph(out)
        graph.output[0].type.tensor_type.elem_type = self.b.types.get(out, FLOAT)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})[0]

    def operators(self, out):
        return [node.op_type for node in self.graph(out).node]


def some(count=5, shape=(3, 6, 8), seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def check(traced, out, images, expected):
    found = traced.run(out, images)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


ERF = np.vectorize(__import__("math").erf)


@pytest.mark.parametrize(
    ("operator", "numpy"),
    [
        ("Abs", np.abs),
        ("Sqrt", np.sqrt),
        ("Square", np.square),
        ("Reciprocal", np.reciprocal),
        ("Rsqrt", lambda x: 1 / np.sqrt(x)),
        ("ReLU", lambda x: np.maximum(x, 0)),
        ("Erf", lambda x: ERF(x).astype(np.float32)),
        ("Load", lambda x: x),
        ("Depend", lambda x: x),
    ],
)
def test_of_one_tensor(operator, numpy):
    images = some() if operator in ("Abs", "ReLU", "Erf") else np.abs(some()) + 0.1
    traced = Traced()
    out = traced.add(operator, "images")
    if out == "images":
        out = traced.add("Abs", out)
    check(traced, out, images, numpy(images))


@pytest.mark.parametrize("other", [2.5, np.float32(-0.5).reshape(()), some(1, (6, 8))[0], some(1, (1, 8))])
@pytest.mark.parametrize(
    ("operator", "numpy"),
    [
        ("Add", np.add),
        ("Sub", np.subtract),
        ("Mul", np.multiply),
        ("Muls", np.multiply),
        ("Div", np.divide),
        ("Maximum", np.maximum),
        ("Minimum", np.minimum),
        ("Pow", lambda x, y: np.power(np.abs(x) + 0.1, y)),
    ],
)
def test_of_two(operator, numpy, other):
    images, traced = some(), Traced()
    x = "images"
    if operator == "Pow":
        x = traced.add("Add", traced.add("Abs", "images"), 0.1)
    check(traced, traced.add(operator, x, other), images, numpy(images, np.float32(other)))
    if operator in ("Sub", "Div", "Add", "Mul"):
        turned = Traced()
        check(turned, turned.add(operator, other, "images"), images, numpy(np.float32(other), images))


def test_numbers_of_another_type_are_cast_as_mindspore_does():
    traced = Traced(kind=TensorProto.FLOAT16, scale=some(1, (8,))[0])
    out = traced.add("Mul", "images", "scale", shape=(N, 3, 6, 8))
    images = some().astype(np.float16)
    check(traced, out, images, images.astype(np.float32) * some(1, (8,))[0])
    check(traced, traced.add("Add", "images", 0.0), images, images.astype(np.float32))


def test_what_changes_nothing_is_left_out():
    """x + m (x - x), which a rule for gradients leaves behind."""
    traced = Traced()
    nothing = traced.add("Sub", "images", "images")
    nothing = traced.add("Mul", nothing, 3.0, shape=(N, 3, 6, 8))
    assert traced.add("Add", "images", nothing) == "images" == traced.add("Add", nothing, "images")
    assert traced.add("Cast", "images", 43) == "images"


def test_a_clip():
    images, traced = 3 * some(), Traced()
    out = traced.add("Minimum", traced.add("Maximum", "images", np.float32(-1)), np.float32(1))
    assert traced.operators(out) == ["Clip"]
    check(traced, out, images, images.clip(-1, 1))


def test_sign_of_zero_is_one():
    images, traced = some(), Traced()
    images[0, 0, 0, :4] = [0.0, -0.0, 1e-38, -1e-38]
    truth = traced.add("GreaterEqual", "images", np.zeros((), np.float32), kind=TensorProto.BOOL)
    out = traced.add("Sub", traced.add("Muls", traced.add("Cast", truth, 43), 2.0), np.float32(1))
    assert traced.operators(out) == ["GreaterOrEqual", "Where"]
    check(traced, out, images, np.where(images >= 0, np.float32(1), np.float32(-1)))


def windows(x, size, step, fill):
    """The windows of 3 x 3 maps with a border of one pixel, (N, C, H', W', size, size)."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[:, :, ::step, ::step]


@pytest.mark.parametrize(("mode", "step"), [("pad", 1), ("pad", 2), ("valid", 1), ("same", 1), ("same", 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_conv2d(mode, step, bias):
    images, weight, offset = some(), some(4, (3, 3, 3)), some(1, (4,))[0]
    whole = np.einsum("nchwij,ocij->nohw", windows(images, 3, 1, 0), weight)
    expected = {
        "pad": whole[:, :, ::step, ::step],
        "valid": whole[:, :, 1:-1, 1:-1],
        # An even side that is halved is padded at its end alone.
        "same": whole[:, :, step - 1 :: step, step - 1 :: step],
    }[mode]
    traced = Traced(weight=weight, bias=offset)
    how = {"kernel_size": 3, "stride": (1, 1, step, step), "dilation": (1, 1, 1, 1), "group": 1}
    shape = (N, *expected.shape[1:])
    out = traced.add("Conv2D", "images", "weight", shape=shape, pad_mode=mode, pad=(1, 1, 1, 1), **how)
    if bias:
        out = traced.add("BiasAdd", out, "bias", 0, shape=shape)
        expected = expected + offset.reshape(-1, 1, 1)
    assert traced.operators(out) == ["Conv"]
    check(traced, out, images, expected.astype(np.float32))


@pytest.mark.parametrize("bias", [False, True])
def test_matmul(bias):
    images, weight, offset = some(shape=(8,)), some(4, (8,)), some(1, (4,))[0]
    traced = Traced((8,), weight=weight, bias=offset)
    out = traced.add("MatMul", "images", "weight", False, True, shape=(N, 4))
    if bias:
        out = traced.add("BiasAdd", out, "bias", 0, shape=(N, 4))
    assert traced.operators(out) == ["Gemm"]
    check(traced, out, images, images @ weight.T + (offset if bias else 0))
    out = traced.add("MatMulExt", "images", weight.T.copy(), shape=(N, 4))
    check(traced, out, images, images @ weight.T)


def test_a_bias_of_what_is_no_product():
    images, traced = some(), Traced(bias=some(1, (3,))[0])
    check(
        traced, traced.add("BiasAdd", "images", "bias", 0), images, images + some(1, (3,))[0].reshape(3, 1, 1)
    )


def test_batch_norm():
    gamma, beta, mean = some(3, (3,))
    numbers = {"gamma": gamma, "beta": beta, "mean": mean, "variance": np.abs(some(1, (3,))[0]) + 0.1}
    images, traced = some(), Traced(**numbers)
    (out,) = traced.add("BatchNorm", "images", *numbers, False, 1e-3, 0.1, 0)
    shaped = {name: value.reshape(3, 1, 1) for name, value in numbers.items()}
    standard = (images - shaped["mean"]) / np.sqrt(shaped["variance"] + 1e-3)
    check(traced, out, images, standard * shaped["gamma"] + shaped["beta"])
    with pytest.raises(UserError, match="BatchNorm in training mode is not translated"):
        traced.add("BatchNorm", "images", *numbers, True, 1e-3, 0.1, 0)


def test_group_norm():
    images, (gamma, beta) = some(shape=(6, 3, 4)), some(2, (6,))
    traced = Traced((6, 3, 4), gamma=gamma, beta=beta)
    (out,) = traced.add("GroupNorm", "images", 2, "gamma", "beta", 1e-3)
    groups = images.reshape(5, 2, -1).astype(np.float64)
    standard = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-3)
    expected = standard.reshape(images.shape) * gamma.reshape(6, 1, 1) + beta.reshape(6, 1, 1)
    check(traced, out, images, expected.astype(np.float32))


def test_pooling():
    images, traced = some(), Traced()
    how = {"kernel_size": (1, 1, 2, 2), "strides": (1, 1, 2, 2), "pad_mode": "VALID"}
    tiles = images.reshape(5, 3, 3, 2, 4, 2)
    shape = (N, 3, 3, 4)
    check(traced, traced.add("MaxPool", "images", shape=shape, **how), images, tiles.max((3, 5)))
    out = traced.add("AvgPool", "images", (2, 2), (2, 2), 2, 0, shape=shape)
    check(traced, out, images, tiles.mean((3, 5)))
    with pytest.raises(UserError, match="AvgPool with padding is not translated"):
        traced.add("AvgPool", "images", (2, 2), (2, 2), 1, 0, shape=shape)


POOL = {"kernel_size": (1, 1, 3, 3), "strides": (1, 1, 2, 2), "pad_mode": "VALID"}


@pytest.mark.parametrize("side", [8, 7])
def test_a_border_that_repeats_pixels_is_the_pools_own(side):
    """`PaddedMaxPool2d`: of even sides the first row and column alone."""
    images, traced = some(shape=(3, side, side)), Traced((3, side, side))
    x, long = "images", side + 1 + side % 2
    for axis, shape in ((2, (N, 3, long, side)), (3, (N, 3, long, long))):
        cut = [(0,) * (axis + 1), (*(0,) * axis, 1), (1,) * (axis + 1)]
        low = (1 << axis) - 1
        parts = [traced.add("StridedSlice", x, *cut, low | 1 << axis, low, 0, 0, 0), x]
        if side % 2:
            cut[0] = (*(0,) * axis, -1)
            parts.append(traced.add("StridedSlice", x, *cut, low, low | 1 << axis, 0, 0, 0))
        x = traced.add("Concat", tuple(parts), axis, shape=shape)
    out = traced.add("MaxPool", x, shape=(N, 3, 4, 4), **POOL)
    assert traced.operators(out) == ["MaxPool"]
    check(traced, out, images, windows(images, 3, 2, -np.inf).max((4, 5))[:, :, :4, :4])
    check(
        traced,
        traced.add("Abs", x),
        images,
        np.abs(np.pad(images, [(0, 0), (0, 0)] + 2 * [(1, side % 2)], "edge")),
    )


def test_a_border_of_zeros_counts_as_zeros():
    """`ZeroPaddedMaxPool2d`, where all else is negative."""
    images, traced = -np.abs(some()) - 1, Traced()
    rows, columns = np.zeros((N, 3, 1, 8), np.float32), np.zeros((N, 3, 8, 1), np.float32)
    x = traced.add("Concat", (rows, "images", rows), 2, shape=(N, 3, 8, 8))
    x = traced.add("Concat", (columns, x, columns), 3, shape=(N, 3, 8, 10))
    out = traced.add("MaxPool", x, shape=(N, 3, 3, 4), **POOL)
    assert traced.operators(out) == ["MaxPool", "Max"]
    check(traced, out, images, windows(images, 3, 2, 0).max((4, 5)))


def test_concat():
    images, traced = some(), Traced()
    other = traced.add("Abs", "images")
    out = traced.add("Concat", ("images", other), 1, shape=(N, 6, 6, 8))
    check(traced, out, images, np.concatenate([images, np.abs(images)], axis=1))
    ones = np.ones((N, 3, 6, 1), np.float32)
    out = traced.add("Concat", ("images", ones), -1, shape=(N, 3, 6, 9))
    check(traced, out, images, np.pad(images, [(0, 0)] * 3 + [(0, 1)], constant_values=1))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (-1,)])
def test_reductions(axes, keep):
    images, traced = some(), Traced()
    for operator, rule in (("ReduceMean", np.mean), ("ReduceMax", np.max), ("SumExt", np.sum)):
        out = traced.add(operator, "images", axes, keep, *([None] if operator == "SumExt" else []))
        check(traced, out, images, rule(images, axes, keepdims=keep))
    if len(axes) == 1:
        nothing, out = traced.add("ArgMaxWithValue", "images", axes[0], keep)
        assert nothing is None
        check(traced, out, images, images.max(axes, keepdims=keep))


def test_views():
    images, traced = some(), Traced()
    check(traced, traced.add("Transpose", "images", (0, 2, 3, 1)), images, images.transpose(0, 2, 3, 1))
    for shape in ((N, 144), (N, 3, 48), (N, 18, 8, 1)):
        out = traced.add("Reshape", "images", (*shape[:-1], -1), shape=shape)
        check(traced, out, images, images.reshape(5, *shape[1:]))
    assert traced.add("Reshape", "images", (N, 3, 6, -1), shape=(N, 3, 6, 8)) == "images"
    out = traced.add("Elu", "images", 1.0)
    check(traced, out, images, np.where(images > 0, images, np.expm1(images)))


def test_slices():
    images, traced = some(), Traced()
    # x[:, 1:, 2]: the last axis that is named is a number
    out = traced.add(
        "StridedSlice", "images", (0, 1, 2), (0, 0, 3), (1, 1, 1), 1, 3, 0, 0, 4, shape=(N, 2, 8)
    )
    check(traced, out, images, images[:, 1:, 2])
    out = traced.add("StridedSlice", "images", (0, -1), (0, 0), (1, 1), 1, 1, 0, 0, 2, shape=(N, 6, 8))
    check(traced, out, images, images[:, -1])
    for strange in [
        ((0,), (4,), (2,), 0, 0, 0, 0, 0),
        ((0,), (4,), (1,), 0, 0, 1, 0, 0),
        ((0,), (4,), (1,), 0, 0, 0, 1, 0),
    ]:
        with pytest.raises(UserError, match="StridedSlice with steps or new axes is not translated"):
            traced.add("StridedSlice", "images", *strange)


def test_pixels():
    traced = Traced((6, 8, 3), TensorProto.UINT8)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3)).astype(np.uint8)
    check(traced, traced.add("Cast", "images", 43), pixels, pixels.astype(np.float32))


def test_tuples():
    traced = Traced()
    values = traced.add("MakeTuple", "images", 3)
    assert values == ("images", 3) and traced.add("TupleGetItem", values, 1, shape=()) == 3
    assert traced.add("UpdateState", "images", None) is None
