# SPDX-License-Identifier: Apache-2.0
"""From a network's ONNX graph to the steps of a packed file.

A convolution of signs by weights of one size in each filter is 1-bit. What is linear in each channel behind
it (batch normalisation, a scale, an offset) becomes its `multiply` and `add`, and the addition of a shortcut
becomes part of it. Behind a real-valued convolution it becomes part of weight and bias.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from ...common.errors import UserError
from .program import IMAGES, LOGITS, WORD, Program, Step

_NO_LIMIT = float(np.finfo(np.float32).max)


def program_from_onnx(model: onnx.ModelProto) -> Program:
    """The steps of a network with 1-bit convolutions.

    Args:
        model: from `images` (N, C, H, W) float32 to `logits`, as `deploy.onnx` makes it.

    Raises:
        UserError: the network has no 1-bit convolution, or an operator that no step computes.
    """
    graph = _Graph(model)
    if not any(node.op_type == "GreaterOrEqual" for node in graph.nodes):
        raise graph.refusal("no convolution takes signs")
    for node in graph.nodes:
        if node.op_type not in _OPERATORS:
            raise graph.refusal(f"no step computes {_named(node)}")
        _OPERATORS[node.op_type](graph, node, *map(graph.resolve, node.input))
    if not any(step.kind == "binary_convolution" for step in graph.steps.values()):
        raise graph.refusal("no convolution takes signs")
    try:
        return graph.program()
    except ValueError as error:
        raise graph.refusal(str(error)) from error


def pack_signs(signs: np.ndarray) -> np.ndarray:
    """Booleans (O, I, k, k), true for +1 -> words uint64 (O, k, k, ceil(I / 64)); see `program`."""
    missing = -signs.shape[1] % WORD
    bits = np.pad(signs.transpose(0, 2, 3, 1), ((0, 0), (0, 0), (0, 0), (0, missing)))
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


@dataclass
class _Making:
    """A step while it is made; its arrays are float64 until the end, so that only the result is rounded."""

    kind: str
    inputs: list[str]
    numbers: dict[str, int | float] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = ""

    def scale(self, multiply: np.ndarray, add: np.ndarray) -> None:
        """Makes it compute multiply * what it computed + add."""
        names = ("weight", "bias") if "weight" in self.arrays else ("multiply", "add")
        factor, offset = (self.arrays[name] for name in names)
        self.arrays[names[0]] = factor * multiply.reshape(-1, *[1] * (factor.ndim - 1))
        self.arrays[names[1]] = offset * multiply + add


class _Graph:
    """An ONNX graph, and the steps that have been made of it, by the names of their outputs.

    Attributes:
        nodes: those that logits need, in order.
        shapes: of the values, with 0 for the batch.
        users: by how many of these nodes a value is taken.
        steps: in order.
        signs: of values that are signs: whose.
        differences: x - clip(x), and that times a number: name -> (clip(x), number).
    """

    def __init__(self, model: onnx.ModelProto):
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.name = graph.name
        self.constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        infos = [*graph.input, *graph.value_info, *graph.output]
        self.shapes = {one.name: tuple(d.dim_value for d in one.type.tensor_type.shape.dim) for one in infos}
        needed = {LOGITS}
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                needed.update(node.input)
        self.nodes = [node for node in graph.node if needed.intersection(node.output)]
        self.users = Counter([LOGITS, *(one for node in self.nodes for one in node.input)])
        self.steps: dict[str, _Making] = {}
        self.signs: dict[str, str] = {}
        self.differences: dict[str, tuple[str, float]] = {}
        self._same: dict[str, str] = {}

    def refusal(self, reason: str) -> UserError:
        return UserError(
            f"file_format: PACKED is for networks with 1-bit weights and inputs; in {self.name}, {reason}; "
            "use ONNX"
        )

    def constant(self, node: onnx.NodeProto, name: str) -> np.ndarray:
        """What a node takes, which must be a constant."""
        if name not in self.constants:
            raise self.refusal(f"no step computes {_named(node)} of what changes with the image, {name}")
        return self.constants[name].astype(np.float64)

    def resolve(self, name: str) -> str:
        """The value that a name stands for."""
        return self._same.get(name, name)

    def pass_on(self, node: onnx.NodeProto, x: str) -> None:
        """The node's output is x."""
        self._same[node.output[0]] = x
        self.users[x] += self.users[node.output[0]] - 1

    def add(self, node: onnx.NodeProto, step: _Making) -> None:
        """A step that computes the node's output."""
        self.check_computed(node, step.inputs)
        self.steps[node.output[0]] = step

    def check_computed(self, node: onnx.NodeProto, names: Sequence[str]) -> None:
        """Refuses signs and what else is no value of a step."""
        for name in names:
            if name != IMAGES and name not in self.steps:
                raise self.refusal(f"no step computes what {_named(node)} takes, {name}")

    def only(self, x: str, *kinds: str) -> _Making | None:
        """The step that computes x, if it is of these kinds and nothing but the node at hand takes x."""
        step = self.steps.get(x)
        return step if step and step.kind in kinds and self.users[x] == 1 else None

    def replace(self, x: str, node: onnx.NodeProto) -> _Making:
        """The step that computed x, which now computes the node's output."""
        step = self.steps[node.output[0]] = self.steps.pop(x)
        return step

    def channels(self, node: onnx.NodeProto, x: str, constant: str) -> np.ndarray:
        """A constant that is one number for each channel of x."""
        shape, array = self.shapes[x], self.constant(node, constant)
        spread = array.reshape(*[1] * (len(shape) - array.ndim), *array.shape)
        if spread.ndim != len(shape) or any(n != 1 for axis, n in enumerate(spread.shape) if axis != 1):
            raise self.refusal(f"no step computes {_named(node)} by {array.shape}")
        return np.broadcast_to(spread.reshape(-1), shape[1]).copy()

    def program(self) -> Program:
        """What has been made, with the names of the weights for the steps that have some."""
        names, taken = {IMAGES: IMAGES}, {LOGITS}
        for output, step in self.steps.items():
            plain = step.name if step.name and step.name not in taken else output
            names[output] = output if output == self.resolve(LOGITS) else plain
            taken.add(names[output])
        names[self.resolve(LOGITS)] = LOGITS
        steps = []
        for output, step in self.steps.items():
            inputs = tuple(names[one] for one in step.inputs)
            arrays = {name: _rounded(array) for name, array in step.arrays.items()}
            steps.append(Step(step.kind, inputs, names[output], step.numbers, arrays))
        return Program(tuple(steps), self.shapes[IMAGES][1])


def _rounded(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.uint64 if array.dtype == np.uint64 else np.float32)


def _named(node: onnx.NodeProto) -> str:
    return f"the operator {node.op_type} ({node.output[0]})"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _sign(graph: _Graph, node: onnx.NodeProto, x: str, zero: str) -> None:
    if zero not in graph.constants or graph.constants[zero].any():
        raise graph.refusal(f"no step computes {_named(node)}")
    graph.signs[node.output[0]] = x


def _where(graph: _Graph, node: onnx.NodeProto, condition: str, one: str, other: str) -> None:
    values = [graph.constants.get(name) for name in (one, other)]
    if condition not in graph.signs or [v is not None and v.tolist() for v in values] != [1, -1]:
        raise graph.refusal(f"no step computes {_named(node)}")
    graph.signs[node.output[0]] = graph.signs[condition]


def _conv(graph: _Graph, node: onnx.NodeProto, x: str, weight: str, bias: str = "") -> None:
    how = _attributes(node)
    filters = graph.constant(node, weight)
    strides, pads = set(how.get("strides", [1, 1])), set(how.get("pads", [0]))
    odd = {*how.get("dilations", [1]), how.get("group", 1)} != {1} or filters.shape[2] != filters.shape[3]
    odd |= not how.keys() <= {"kernel_shape", "strides", "pads", "dilations", "group"}
    if odd or len(strides) > 1 or len(pads) > 1:
        raise graph.refusal(f"no step computes {_named(node)} with {how}")
    numbers = {"stride": strides.pop(), "padding": pads.pop()}
    offset = graph.constant(node, bias) if bias else np.zeros(len(filters))
    name = weight.removesuffix(".weight")
    if x not in graph.signs:
        step = _Making("convolution", [x], numbers, {"weight": filters, "bias": offset}, name)
        return graph.add(node, step)
    scales = np.abs(filters).max(axis=(1, 2, 3))
    if (np.abs(filters) != scales.reshape(-1, 1, 1, 1)).any():
        raise graph.refusal(f"the weights of {name} are real numbers")
    arrays = {"bits": pack_signs(filters >= 0), "multiply": scales, "add": offset}
    numbers = {"channels": filters.shape[1], **numbers}
    return graph.add(node, _Making("binary_convolution", [graph.signs[x]], numbers, arrays, name))


def _linear(graph: _Graph, node: onnx.NodeProto, x: str, multiply: np.ndarray, add: np.ndarray) -> None:
    """multiply * x + add in each channel: part of the step before, or one of its own."""
    step = graph.only(x, "convolution", "binary_convolution", "affine", "dense")
    if step is None or (step.kind == "binary_convolution" and len(step.inputs) > 1):
        graph.add(node, _Making("affine", [x], {}, {"multiply": multiply, "add": add}))
    else:
        graph.replace(x, node).scale(multiply, add)


def _batch_norm(graph: _Graph, node: onnx.NodeProto, x: str, *parameters: str) -> None:
    gamma, beta, mean, variance = (graph.constant(node, name) for name in parameters)
    scale = gamma / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
    _linear(graph, node, x, scale, beta - mean * scale)


def _mul(graph: _Graph, node: onnx.NodeProto, x: str, y: str) -> None:
    x, y = (y, x) if x in graph.constants else (x, y)
    if y in graph.constants and x in graph.differences and graph.constants[y].size == 1:
        clip, slope = graph.differences[x]
        graph.differences[node.output[0]] = clip, slope * graph.constants[y].item()
    elif y in graph.constants:
        multiply = graph.channels(node, x, y)
        _linear(graph, node, x, multiply, np.zeros_like(multiply))
    else:
        raise graph.refusal(f"no step computes {_named(node)} of two values")


def _sub(graph: _Graph, node: onnx.NodeProto, x: str, y: str) -> None:
    clip = graph.steps.get(y)
    if y in graph.constants:
        add = -graph.channels(node, x, y)
        _linear(graph, node, x, np.ones_like(add), add)
    elif clip and clip.kind == "clip" and clip.inputs == [x]:
        graph.differences[node.output[0]] = y, 1.0
    else:
        raise graph.refusal(f"no step computes {_named(node)}")


def _add(graph: _Graph, node: onnx.NodeProto, x: str, y: str) -> None:
    for one, other in ((x, y), (y, x)):
        if one in graph.constants:
            add = graph.channels(node, other, one)
            return _linear(graph, node, other, np.ones_like(add), add)
        if one in graph.differences and graph.differences[one][0] == other and graph.users[other] == 2:
            graph.replace(other, node).numbers["slope"] = graph.differences[one][1]
            return None
        step = graph.only(one, "binary_convolution")
        if step and len(step.inputs) == 1 and graph.shapes[one] == graph.shapes[other]:
            graph.check_computed(node, [other])
            graph.replace(one, node).inputs.append(other)
            return None
    return graph.add(node, _Making("add", [x, y]))


def _clip(graph: _Graph, node: onnx.NodeProto, x: str, low: str = "", high: str = "") -> None:
    limits = {"low": low, "high": high}
    numbers = {"low": -_NO_LIMIT, "high": _NO_LIMIT, "slope": 0.0}
    numbers |= {key: graph.constant(node, name).item() for key, name in limits.items() if name}
    graph.add(node, _Making("clip", [x], numbers))


def _max_pool(graph: _Graph, node: onnx.NodeProto, x: str) -> None:
    """The border is as wide on all sides; where it is wider than in the graph, it makes no more windows."""
    numbers, (top, left, bottom, right) = _window(graph, node)
    size, stride = numbers["size"], numbers["stride"]
    same = all(
        (side + top + end - size) // stride == (side + 2 * top - size) // stride
        for side, end in zip(graph.shapes[x][2:], (bottom, right), strict=True)
    )
    if top != left or max(bottom, right) > top or not same:
        raise graph.refusal(f"no step computes {_named(node)} with {_attributes(node)}")
    graph.add(node, _Making("max_pool", [x], {**numbers, "padding": top}))


def _average_pool(graph: _Graph, node: onnx.NodeProto, x: str) -> None:
    numbers, pads = _window(graph, node)
    if any(pads):
        raise graph.refusal(f"no step computes {_named(node)} with {_attributes(node)}")
    graph.add(node, _Making("average_pool", [x], numbers))


def _window(graph: _Graph, node: onnx.NodeProto) -> tuple[dict[str, int | float], list[int]]:
    """Size and stride, and the border: top, left, bottom, right."""
    how = _attributes(node)
    size, stride = set(how["kernel_shape"]), set(how.get("strides", [1]))
    others = {key for key, value in how.items() if key not in ("kernel_shape", "strides", "pads") and value}
    if len(size) > 1 or len(stride) > 1 or others:
        raise graph.refusal(f"no step computes {_named(node)} with {how}")
    return {"size": size.pop(), "stride": stride.pop()}, list(how.get("pads", [0, 0, 0, 0]))


def _mean(graph: _Graph, node: onnx.NodeProto, x: str, axes: str = "") -> None:
    if node.op_type == "ReduceMean" and (not axes or graph.constant(node, axes).tolist() != [2, 3]):
        raise graph.refusal(f"no step computes {_named(node)}")
    graph.add(node, _Making("mean", [x]))


def _flatten(graph: _Graph, node: onnx.NodeProto, x: str, *axes: str) -> None:
    if any(n != 1 for n in graph.shapes[x][2:]):
        raise graph.refusal(f"no step computes {_named(node)}")
    graph.pass_on(node, x)


def _gemm(graph: _Graph, node: onnx.NodeProto, x: str, weight: str, bias: str = "") -> None:
    how = _attributes(node)
    matrix = graph.constant(node, weight)
    if how.get("transA") or how.get("alpha", 1) != 1 or how.get("beta", 1) != 1:
        raise graph.refusal(f"no step computes {_named(node)} with {how}")
    matrix = matrix if how.get("transB") else matrix.T
    offset = graph.constant(node, bias) if bias else np.zeros(1)
    arrays = {"weight": matrix, "bias": np.broadcast_to(offset.reshape(-1), len(matrix)).copy()}
    graph.add(node, _Making("dense", [x], {}, arrays, weight.removesuffix(".weight")))


_OPERATORS: Mapping[str, Callable[..., None]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "GreaterOrEqual": _sign,
    "Identity": lambda graph, node, x: graph.pass_on(node, x),
    "MatMul": _gemm,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "ReduceMean": _mean,
    "Squeeze": _flatten,
    "Sub": _sub,
    "Where": _where,
}
