# SPDX-License-Identifier: Apache-2.0
"""oneDNN called directly: the convolutions of a CPU with AVX-512, in the layouts that its fast kernels take.

MindSpore describes all tensors to oneDNN in plain layouts, the weights too. In those there is no AVX-512
convolution, and `model_utils.cpu.use_fast_convolutions` limits it to AVX2. Here oneDNN chooses the layout of
the weights, and the images have their channels last where that is faster.

The library is the one that MindSpore brings. It is loaded a second time, from a copy in memory, so that
MindSpore's own stays at AVX2. Its C interface: uxlfoundation.github.io/oneDNN.
"""

import ctypes
import functools
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..model_utils.cpu import usable_cores

Shape = tuple[int, ...]

# Of dnnl_types.h.
_CPU, _FLOAT32, _ANY_LAYOUT, _DIRECT, _IN_ORDER, _OURS = 1, 3, 1, 1, 1, 1
_AVX512 = 0x20
_FORWARD_TRAINING = 64
_SRC, _DST, _WEIGHTS, _DIFF_SRC, _DIFF_DST, _DIFF_WEIGHTS = 1, 17, 33, 129, 145, 161
_SCRATCHPAD = 80
_QUERY_WEIGHTS, _QUERY_DIFF_WEIGHTS, _QUERY_SCRATCHPAD = 131, 132, 136


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, or None where it or AVX-512 is not to be had."""
    import mindspore

    path = Path(mindspore.__file__).with_name("lib") / "libdnnl.so.3"
    if not (sys.platform == "linux" and path.is_file()):
        return None
    copy = os.memfd_create("dnnl")
    with path.open("rb") as file, open(copy, "wb", closefd=False) as target:
        while os.sendfile(target.fileno(), file.fileno(), None, 1 << 30):
            pass
    lib = ctypes.CDLL(f"/proc/self/fd/{copy}")
    os.close(copy)
    lib.dnnl_set_max_cpu_isa(0)  # all that this processor has, whatever the environment says
    if not lib.dnnl_get_effective_cpu_isa() & _AVX512:
        return None
    lib.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    lib.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
    return lib


def _call(name: str, *arguments) -> None:
    status = getattr(library(), name)(*arguments)
    if status:
        raise RuntimeError(f"oneDNN: {name} answered {status}")


class _Handle(ctypes.c_void_p):
    """What the library made; it destroys it when nobody here has it any more.

    Args:
        kind: of thing, as "memory_desc".
        make: the function that makes it, behind "dnnl_"; it stores the handle at its first argument.
    """

    def __init__(self, kind: str, make: str, *arguments):
        super().__init__()
        self.destroy = getattr(library(), f"dnnl_{kind}_destroy")
        _call(f"dnnl_{make}", ctypes.byref(self), *arguments)

    def __del__(self) -> None:
        self.destroy(self)


@functools.cache
def _engine() -> _Handle:
    return _Handle("engine", "engine_create", _CPU, ctypes.c_size_t(0))


def _numbers(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


def _layout(shape: Shape, order: Sequence[int] = (0, 1, 2, 3)) -> _Handle:
    """Float32 numbers one behind the other; the last axis of `order` runs fastest."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis], step = step, step * shape[axis]
    make = "memory_desc_create_with_strides"
    return _Handle("memory_desc", make, len(shape), _numbers(shape), _FLOAT32, _numbers(strides))


def _channels_last(shape: Shape) -> _Handle:
    return _layout(shape, (0, 2, 3, 1))


def _any_layout(shape: Shape) -> _Handle:
    make = "memory_desc_create_with_tag"
    return _Handle("memory_desc", make, len(shape), _numbers(shape), _FLOAT32, _ANY_LAYOUT)


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("memory", ctypes.c_void_p))


@functools.cache
def _attributes() -> _Handle:
    """Working memory comes from here: the library's own is that of the thread that made a primitive."""
    made = _Handle("primitive_attr", "primitive_attr_create")
    _call("dnnl_primitive_attr_set_scratchpad_mode", made, _OURS)
    return made


def _query(described: _Handle, what: int) -> ctypes.c_void_p:
    """A layout that the library has chosen; it lives as long as the description."""
    return ctypes.c_void_p(library().dnnl_primitive_desc_query_md(described, what, 0))


def _size(layout: ctypes.c_void_p) -> int:
    """Float32 numbers that it needs memory for."""
    return -(-library().dnnl_memory_desc_get_size(layout) // 4)


class _Primitive:
    """A computation of the library, for fixed layouts; several threads may call it at once.

    Args:
        described: its description, with `_attributes`.
        layouts: kind of argument -> its layout.
    """

    def __init__(self, described: _Handle, layouts: dict[int, ctypes.c_void_p]):
        scratchpad = _query(described, _QUERY_SCRATCHPAD)
        self._described, self._scratchpad_size = described, _size(scratchpad)
        self._layouts = {**layouts, _SCRATCHPAD: scratchpad}
        self._primitive = _Handle("primitive", "primitive_create", described)

    def __call__(self, *arrays: np.ndarray) -> None:
        """Computes in this thread, from and into arrays in the order of the layouts."""
        stream = _Handle("stream", "stream_create", _engine(), _IN_ORDER)
        arrays = (*arrays, _buffers.take((max(1, self._scratchpad_size),)))
        memories = [
            _Handle("memory", "memory_create", layout, _engine(), ctypes.c_void_p(array.ctypes.data))
            for layout, array in zip(self._layouts.values(), arrays, strict=True)
        ]
        given = (_Argument * len(memories))(*zip(self._layouts, memories))
        _call("dnnl_primitive_execute", self._primitive, stream, len(given), given)
        _call("dnnl_stream_wait", stream)


def _reorder(source: ctypes.c_void_p, target: ctypes.c_void_p) -> _Primitive:
    make, engine = "reorder_primitive_desc_create", _engine()
    described = _Handle("primitive_desc", make, source, engine, target, engine, _attributes())
    return _Primitive(described, {_SRC: source, _DST: target})


class _Buffers:
    """Arrays that are used again: fresh memory takes a system as long as some convolutions."""

    def __init__(self):
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: Shape) -> np.ndarray:
        """Float32 numbers of that shape which nobody else holds, whatever is in them."""
        count = math.prod(shape)
        with self._lock:
            for array in self._arrays:
                # Held by the list, by the loop and as an argument; a view that lives is one more.
                if count <= array.size <= 2 * count and sys.getrefcount(array) == 3:
                    return array[:count].reshape(shape)
            self._arrays.append(np.empty(count, np.float32))
            return self._arrays[-1].reshape(shape)


_buffers = _Buffers()


def output_shape(x: Shape, weight: Shape, *, stride: int, padding: Sequence[int]) -> Shape:
    """(N, out, H', W') of images (N, in, H, W) and weights (out, in, kH, kW)."""
    top, bottom, left, right = padding
    height, width = x[2] + top + bottom - weight[2], x[3] + left + right - weight[3]
    return x[0], weight[0], height // stride + 1, width // stride + 1


class Convolution:
    """A convolution of images and weights of one shape, and its two gradients.

    The images of a batch are divided among threads; `_Part` is what one thread does.

    Args:
        x: shape of the images, (N, in, H, W).
        weight: (out, in, kH, kW).
        stride: of both axes.
        padding: zeros above, below, on the left and on the right.
    """

    def __init__(self, x: Shape, weight: Shape, *, stride: int, padding: tuple[int, int, int, int]):
        top, bottom, left, right = padding
        self.x, self.y = x, output_shape(x, weight, stride=stride, padding=padding)
        threads = min(usable_cores(), x[0])
        ends = [x[0] * part // threads for part in range(threads + 1)]
        self._slices = [slice(*pair) for pair in pairwise(ends)]
        window = [_numbers(pair) for pair in ((stride, stride), (0, 0), (top, left), (bottom, right))]
        parts = {
            count: _Part((count, *x[1:]), weight, (count, *self.y[1:]), window)
            for count in {part.stop - part.start for part in self._slices}
        }
        self._parts = [parts[part.stop - part.start] for part in self._slices]

    def forward(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(N, out, H', W')."""
        y = _buffers.take(self.y)
        self._run(lambda part, rows: part.forward(x[rows], weight, y[rows]))
        return y

    def to_x(self, dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The gradient of the images by that of the output, (N, in, H, W)."""
        dx = _buffers.take(self.x)
        self._run(lambda part, rows: part.to_x(dy[rows], weight, dx[rows]))
        return dx

    def to_weight(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """The gradient of the weights, (out, in, kH, kW)."""
        sums = self._run(lambda part, rows: part.to_weight(x[rows], dy[rows]))
        return functools.reduce(np.add, sums)

    def _run(self, task: Callable) -> list:
        return list(_threads().map(task, self._parts, self._slices))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="convolution")


class _Part:
    """The convolution of some images in one thread.

    Images and their gradients are turned channels-last by the library within `forward` and `to_x`, and here
    for `to_weight`, where it would take a slow kernel.
    """

    def __init__(self, x: Shape, weight: Shape, y: Shape, window: Sequence[ctypes.Array]):
        self._weight_shape, self._x_shape, self._y_shape = weight, x, y
        plain, last = (_layout(x), _layout(y)), (_channels_last(x), _channels_last(y))
        stored, engine = _layout(weight), _engine()

        def describe(pass_: str, images, *hint):
            bias = () if pass_ == "backward_data" else (None,)
            kind = () if hint else (_FORWARD_TRAINING,)
            return _Handle(
                "primitive_desc", f"convolution_{pass_}_primitive_desc_create", engine, *kind, _DIRECT,
                images[0], _any_layout(weight), *bias, images[1], *window, *hint, _attributes(),
            )  # fmt: skip

        forward = describe("forward", plain)
        to_x = describe("backward_data", plain, forward)
        to_weight = describe("backward_weights", last, describe("forward", last))
        chosen = [
            _query(forward, _QUERY_WEIGHTS), _query(to_x, _QUERY_WEIGHTS),
            _query(to_weight, _QUERY_DIFF_WEIGHTS),
        ]  # fmt: skip
        self._sizes = [_size(layout) for layout in chosen]
        self._forward = _Primitive(forward, {_SRC: plain[0], _WEIGHTS: chosen[0], _DST: plain[1]})
        self._to_x = _Primitive(to_x, {_DIFF_DST: plain[1], _WEIGHTS: chosen[1], _DIFF_SRC: plain[0]})
        self._to_weight = _Primitive(to_weight, {_SRC: last[0], _DIFF_DST: last[1], _DIFF_WEIGHTS: chosen[2]})
        self._for_forward, self._for_to_x = (_reorder(stored, layout) for layout in chosen[:2])
        self._from_to_weight = _reorder(chosen[2], stored)
        self._x_last, self._y_last = (_reorder(*pair) for pair in zip(plain, last, strict=True))

    def forward(self, x, weight, y) -> None:
        used = _buffers.take((self._sizes[0],))
        self._for_forward(weight, used)
        self._forward(x, used, y)

    def to_x(self, dy, weight, dx) -> None:
        used = _buffers.take((self._sizes[1],))
        self._for_to_x(weight, used)
        self._to_x(dy, used, dx)

    def to_weight(self, x, dy) -> np.ndarray:
        x_last, dy_last = _buffers.take(self._x_shape), _buffers.take(self._y_shape)
        self._x_last(x, x_last)
        self._y_last(dy, dy_last)
        used, dw = _buffers.take((self._sizes[2],)), np.empty(self._weight_shape, np.float32)
        self._to_weight(x_last, dy_last, used)
        self._from_to_weight(used, dw)
        return dw
