# SPDX-License-Identifier: Apache-2.0
"""Convolution as an operator of MindSpore that calls oneDNN directly: see `onednn`."""

import functools
import itertools
from collections.abc import Callable

from mindspore import ops

from ..model_utils.cpu import calls_onednn
from . import onednn
from .device import on_cpu

_number = itertools.count()


def direct_convolution(*, stride: int, padding: tuple[int, int, int, int]) -> ops.Custom:
    """An operator (x (N, in, H, W), weight (out, in, kH, kW)) -> (N, out, H', W'), float32, with gradients.

    Args:
        stride: of both axes.
        padding: zeros above, below, on the left and on the right.
    """

    def convolution(x, weight) -> onednn.Convolution:
        return _convolution(x.shape, weight.shape, stride, padding)

    def forward(x, weight):
        return convolution(x, weight).forward(x, weight)

    def to_x(dy, weight, x):
        return convolution(x, weight).to_x(dy, weight)

    def to_weight(x, dy, weight):
        return convolution(x, weight).to_weight(x, dy)

    x_operator = _operator(to_x, lambda dy, weight, x: list(x))
    weight_operator = _operator(to_weight, lambda x, dy, weight: list(weight))

    def gradients(x, weight, out, dout):
        return x_operator(dout, weight, x), weight_operator(x, dout, weight)

    def shape_of(x, weight):
        return list(onednn.output_shape(x, weight, stride=stride, padding=padding))

    return _operator(forward, shape_of, gradients)


def is_direct() -> bool:
    """Whether convolutions that are built now call oneDNN directly on this device."""
    return on_cpu() and calls_onednn() and onednn.library() is not None


@functools.lru_cache(maxsize=256)
def _convolution(x, weight, stride, padding) -> onednn.Convolution:
    return onednn.Convolution(x, weight, stride=stride, padding=padding)


def _operator(function: Callable, shape_of: Callable, gradients: Callable | None = None) -> ops.Custom:
    # MindSpore tells operators apart by the name of their function.
    function.__name__ += f"_{next(_number)}"
    return ops.Custom(function, shape_of, lambda first, *others: first, func_type="pyfunc", bprop=gradients)
