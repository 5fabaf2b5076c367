# SPDX-License-Identifier: Apache-2.0
"""MindSpore's operators, each in ONNX's.

A function of the table takes the graph that is made, the traced operator, and its inputs: names of tensors,
or what is known already (arrays, numbers, tuples of numbers). It returns the name of the output, or a tuple
of them. Where two operators are one in ONNX, the function of the second looks at what made its input; the
first is left out if nothing else uses it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from ...common.errors import UserError
from .builder import Builder
from .trace import TRACED_BATCH, Node

Value = Any
Translate = Callable[..., Value]

_VALID = 2  # MindSpore's number of that padding
_LAST = np.iinfo(np.int64).max


def _same(operator: str) -> Translate:
    """One input, no attribute, and the same in ONNX."""
    return lambda b, node, x: b.add(operator, x)


def _of_two(operator: str) -> Translate:
    """Two inputs, which are spread against each other as numpy does it."""
    return lambda b, node, x, y: b.add(operator, _tensor(b, node, x), _tensor(b, node, y))


def _tensor(b: Builder, node: Node, value: Value) -> Value:
    """A number, an array or a tensor in the type that the operator computes in, as MindSpore promotes it."""
    if isinstance(value, str):
        return b.cast(value, node.types[0]) if value in b.types else value
    return np.asarray(value, helper.tensor_dtype_to_np_dtype(node.types[0]))


def _number(b: Builder, value: Value) -> float | None:
    """The value of a constant that is one number."""
    array = b.value(value) if isinstance(value, str) else value
    return None if array is None or np.size(array) != 1 else float(np.reshape(array, ()))


def _integers(values: Any) -> np.ndarray:
    return np.asarray(values, np.int64)


def _pair(value: Any) -> list[int]:
    """Height and width of what MindSpore gives as one number, as two, or as four with N and C before."""
    return [value, value] if isinstance(value, int) else list(value)[-2:]


def _add(b: Builder, node: Node, x: Value, y: Value) -> Value:
    for one, other in ((x, y), (y, x)):
        if _number(b, other) == 0 and b.shapes.get(one) == node.shapes[0]:
            return _tensor(b, node, one)
    return b.add("Add", _tensor(b, node, x), _tensor(b, node, y))


def _mul(b: Builder, node: Node, x: Value, y: Value) -> Value:
    if 0 in (_number(b, x), _number(b, y)):
        return _tensor(b, node, 0)
    return b.add("Mul", _tensor(b, node, x), _tensor(b, node, y))


def _sub(b: Builder, node: Node, x: Value, y: Value) -> Value:
    if isinstance(x, str) and isinstance(y, str) and x == y:  # what a rule for gradients leaves behind
        return _tensor(b, node, 0)
    if (signed := _sign_of(b, x, y)) is not None:
        return b.add("Where", signed, _tensor(b, node, 1), _tensor(b, node, -1))
    return b.add("Sub", _tensor(b, node, x), _tensor(b, node, y))


def _sign_of(b: Builder, x: Value, y: Value) -> str | None:
    """The condition c of 2 c - 1; ONNX's own Sign is 0 at 0."""
    if _number(b, y) != 1 or (doubled := b.producer(x, "Mul")) is None:
        return None
    cast, two = doubled.input
    condition = b.producer(cast, "Cast")
    if _number(b, two) != 2 or condition is None or not b.producer(condition.input[0], "GreaterOrEqual"):
        return None
    return condition.input[0]


def _maximum(b: Builder, node: Node, x: Value, y: Value) -> Value:
    if _number(b, y) is not None:
        return b.add("Clip", x, _tensor(b, node, y))
    return b.add("Max", _tensor(b, node, x), _tensor(b, node, y))


def _minimum(b: Builder, node: Node, x: Value, y: Value) -> Value:
    if _number(b, y) is None:
        return b.add("Min", _tensor(b, node, x), _tensor(b, node, y))
    clip = b.producer(x, "Clip")
    if clip is not None and len(clip.input) == 2:  # limited from below already
        return b.add("Clip", *clip.input, _tensor(b, node, y))
    return b.add("Clip", x, None, _tensor(b, node, y))


def _square(b: Builder, node: Node, x: Value) -> Value:
    return b.add("Mul", x, x)


def _rsqrt(b: Builder, node: Node, x: Value) -> Value:
    return b.add("Reciprocal", b.add("Sqrt", x))


def _cast(b: Builder, node: Node, x: Value, dtype: int) -> Value:
    return b.cast(x, node.types[0])


def _transpose(b: Builder, node: Node, x: Value, axes: tuple[int, ...]) -> Value:
    return b.add("Transpose", x, perm=axes)


def _reshape(b: Builder, node: Node, x: Value, shape: tuple[int, ...]) -> Value:
    target, before = node.shapes[0], b.shapes[x]
    if target == before:
        return x
    if target[0] != TRACED_BATCH or before[0] != TRACED_BATCH:
        return b.add("Reshape", x, _integers(target))
    if len(target) == 2:
        return b.add("Flatten", x, axis=1)
    return b.add("Reshape", x, _integers([0, *target[1:]]))


def _silu(b: Builder, node: Node, x: Value) -> Value:
    return b.add("Mul", x, b.add("Sigmoid", x))


def _elu(b: Builder, node: Node, x: Value, alpha: float) -> Value:
    return b.add("Elu", x, alpha=alpha)


def _conv2d(b: Builder, node: Node, x: Value, weight: Value) -> Value:
    how = node.attributes
    kernel, strides, dilations = (_pair(how[key]) for key in ("kernel_size", "stride", "dilation"))
    pads = _pads(how["pad_mode"], how["pad"], b.shapes[x][2:], kernel, strides, dilations)
    return b.add(
        "Conv", x, weight,
        kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations, group=how.get("group", 1),
    )  # fmt: skip


def _pads(mode, pad, sides, kernel, strides, dilations) -> list[int]:
    """Top, left, bottom, right."""
    mode = mode.lower()
    if mode == "pad":
        top, bottom, left, right = pad
        return [top, left, bottom, right]
    if mode == "valid":
        return [0, 0, 0, 0]
    totals = [
        max((-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side, 0)
        for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True)
    ]  # "same": ceil(side / stride) windows; what is odd goes to the end
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _bias_add(b: Builder, node: Node, x: Value, bias: Value, layout: int) -> Value:
    for operator in ("Conv", "Gemm"):
        made = b.producer(x, operator)
        if made is not None and len(made.input) == 2:
            attributes = {one.name: helper.get_attribute_value(one) for one in made.attribute}
            return b.add(operator, *made.input, bias, **attributes)
    if len(node.shapes[0]) > 2:
        bias = b.add("Reshape", bias, _integers([-1, *[1] * (len(node.shapes[0]) - 2)]))
    return b.add("Add", x, bias)


def _matmul(b: Builder, node: Node, x: Value, y: Value, transposed_x: bool, transposed_y: bool) -> Value:
    return b.add("Gemm", x, y, transA=int(transposed_x), transB=int(transposed_y))


def _batch_norm(b, node, x, gamma, beta, mean, variance, training, epsilon, *rest) -> Value:
    if training:
        raise UserError("MindSpore's BatchNorm in training mode is not translated to ONNX")
    return (b.add("BatchNormalization", x, gamma, beta, mean, variance, epsilon=epsilon),)


def _group_norm(b, node, x, groups, gamma, beta, epsilon) -> Value:
    """Groups as instances, and scale and offset by a normalisation with the fixed statistics 0 and 1.

    onnxruntime computes ONNX's own GroupNormalization by a chain of small operators: on two cores 2.6 times
    slower for 1 x 64 x 56 x 56 (0.24 ms against 0.09), with Mul and Add behind the groups 1.3 times (0.12).
    """
    channels, *sides = b.shapes[x][1:]
    one, zero = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    view = b.add("Reshape", x, _integers([0, groups, -1]))
    view = b.add("InstanceNormalization", view, one, zero, epsilon=epsilon)
    view = b.add("Reshape", view, _integers([0, channels, *sides]))
    mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return (b.add("BatchNormalization", view, gamma, beta, mean, variance, epsilon=0.0),)


def _max_pool(b: Builder, node: Node, x: Value) -> Value:
    """A border of one pixel becomes the pool's own, which counts as minus infinity.

    That is the same where the border repeats the pixel beside it, which is in every window that the border is
    in. A border of numbers is put back as their maximum with the windows that reach into it. (A Pad in front
    would do, but onnxruntime 1.31 moves it into the pool, whatever its number; so does onnxsim.)
    """
    how = node.attributes
    kernel, strides = _pair(how["kernel_size"]), _pair(how["strides"])
    pads = _pads(how["pad_mode"], None, b.shapes[x][2:], kernel, strides, [1, 1])
    pad, number = b.producer(x, "Pad"), None
    if pad is not None and min(kernel) > 1 and not any(pads):
        around = b.value(pad.input[1]).reshape(2, -1)
        if around.max() == 1 and not around[:, :2].any():
            x, pads = pad.input[0], around[:, 2:].reshape(-1).tolist()
            number = b.value(pad.input[2]) if len(pad.input) > 2 else None
    y = b.add("MaxPool", x, kernel_shape=kernel, strides=strides, pads=pads)
    if number is None:
        return y
    return b.add("Max", y, _border(number, b.shapes[x][2:], node.shapes[0][2:], kernel, strides, pads))


def _border(number, sides, results, kernel, strides, pads) -> np.ndarray:
    """(1, 1, H', W'): the number for windows that reach beyond the image, the lowest there is for others."""
    beyond = []
    for side, count, size, stride, before in zip(sides, results, kernel, strides, pads[:2], strict=True):
        first = np.arange(count) * stride - before
        beyond.append((first < 0) | (first + size > side))
    reaches = beyond[0][:, None] | beyond[1][None, :]
    return np.where(reaches, number, np.finfo(number.dtype).min)[None, None]


def _avg_pool(b: Builder, node: Node, x: Value, kernel, strides, padding: int, layout: int) -> Value:
    if padding != _VALID:
        raise UserError("MindSpore's AvgPool with padding is not translated to ONNX")
    return b.add("AveragePool", x, kernel_shape=_pair(kernel), strides=_pair(strides))


def _reduce(operator: str) -> Translate:
    def reduced(b: Builder, node: Node, x: Value, axes: Any, keep: bool = False, *rest: Any) -> Value:
        axes = [axes] if isinstance(axes, int) else list(axes)
        if operator == "ReduceMean" and axes == [2, 3] and keep and len(b.shapes[x]) == 4:
            return b.add("GlobalAveragePool", x)
        return b.add(operator, x, _integers(axes), keepdims=int(keep))

    return reduced


def _largest(b: Builder, node: Node, x: Value, axis: int, keep: bool) -> Value:
    return None, b.add("ReduceMax", x, _integers([axis]), keepdims=int(keep))


def _strided_slice(b: Builder, node: Node, x: Value, begin, end, steps, *masks: int) -> Value:
    from_start, to_end, ellipsis, new, shrunk = masks
    if ellipsis or new or set(steps) != {1}:
        raise UserError("MindSpore's StridedSlice with steps or new axes is not translated to ONNX")
    cuts = {}
    for axis, (first, last) in enumerate(zip(begin, end, strict=True)):
        first = 0 if from_start >> axis & 1 else first
        last = _LAST if to_end >> axis & 1 else last
        if shrunk >> axis & 1:
            last = first + 1 or _LAST
        side = b.shapes[x][axis]
        if range(side)[first:last] != range(side):
            cuts[axis] = (first, last)
    if cuts:
        firsts, lasts = zip(*cuts.values(), strict=True)
        x = b.add("Slice", x, _integers(firsts), _integers(lasts), _integers(list(cuts)))
    gone = [axis for axis in range(len(begin)) if shrunk >> axis & 1]
    return b.add("Squeeze", x, _integers(gone)) if gone else x


def _concat(b: Builder, node: Node, parts: tuple[Value, ...], axis: int) -> Value:
    axis %= len(node.shapes[0])
    if (padded := _padded(b, node, parts, axis)) is not None:
        return padded
    return b.add("Concat", *parts, axis=axis)


def _padded(b: Builder, node: Node, parts: tuple[Value, ...], axis: int) -> Value | None:
    """One tensor between equal numbers, or between its own first and last row, is padded."""
    edges = [isinstance(part, str) and _is_edge(b, parts, place, axis) for place, part in enumerate(parts)]
    inner = [place for place, part in enumerate(parts) if isinstance(part, str) and not edges[place]]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    numbers = {number for array in arrays for number in np.unique(array).tolist()}
    if len(inner) != 1 or len(numbers) + any(edges) != 1:
        return None
    pads = np.zeros((2, len(node.shapes[0])), np.int64)
    for place, part in enumerate(parts):
        if place != inner[0]:
            pads[int(place > inner[0]), axis] += 1 if edges[place] else part.shape[axis]
    value = np.asarray(numbers.pop(), arrays[0].dtype) if arrays else None
    return _pad(b, parts[inner[0]], pads.reshape(-1), value)


def _is_edge(b: Builder, parts: tuple[Value, ...], place: int, axis: int) -> bool:
    """Whether it is the first row of the one behind it, or the last of the one before it."""
    cut = b.producer(parts[place], "Slice")
    if cut is None or b.value(cut.input[3]).tolist() != [axis]:
        return False
    rows = tuple(int(b.value(one).item()) for one in cut.input[1:3])
    neighbour = {(0, 1): place + 1, (-1, _LAST): place - 1}.get(rows, -1)
    whole = parts[neighbour] if 0 <= neighbour < len(parts) else None
    return isinstance(whole, str) and whole == cut.input[0]


def _pad(b: Builder, x: str, pads: np.ndarray, value: np.ndarray | None) -> str:
    """Pads with a value, or without one by repeating the edge; one node with what is padded alike already."""
    inner = b.producer(x, "Pad")
    if inner is not None and (b.value(inner.input[2]) if len(inner.input) > 2 else None) == value:
        x, pads = inner.input[0], pads + b.value(inner.input[1])
    if value is None:
        return b.add("Pad", x, pads, mode="edge")
    return b.add("Pad", x, pads, value)


OPERATORS: dict[str, Translate] = {
    "Abs": _same("Abs"),
    "Add": _add,
    "ArgMaxWithValue": _largest,
    "AvgPool": _avg_pool,
    "BatchNorm": _batch_norm,
    "BiasAdd": _bias_add,
    "Cast": _cast,
    "Concat": _concat,
    "Conv2D": _conv2d,
    "Depend": lambda b, node, x, *rest: x,
    "Div": _of_two("Div"),
    "Elu": _elu,
    "Erf": _same("Erf"),
    "GreaterEqual": lambda b, node, x, y: b.add("GreaterOrEqual", x, y),
    "GroupNorm": _group_norm,
    "Load": lambda b, node, x, *rest: x,
    "MakeTuple": lambda b, node, *values: values,
    "MatMul": _matmul,
    "MatMulExt": _of_two("MatMul"),
    "MaxPool": _max_pool,
    "Maximum": _maximum,
    "Minimum": _minimum,
    "Mul": _mul,
    "Muls": _mul,
    "Pow": _of_two("Pow"),
    "ReLU": _same("Relu"),
    "Reciprocal": _same("Reciprocal"),
    "ReduceMax": _reduce("ReduceMax"),
    "ReduceMean": _reduce("ReduceMean"),
    "Reshape": _reshape,
    "Rsqrt": _rsqrt,
    "SiLU": _silu,
    "Sqrt": _same("Sqrt"),
    "Square": _square,
    "StridedSlice": _strided_slice,
    "Sub": _sub,
    "SumExt": _reduce("ReduceSum"),
    "Transpose": _transpose,
    "TupleGetItem": lambda b, node, values, index: values[index],
    "UpdateState": lambda b, node, *values: None,
}
