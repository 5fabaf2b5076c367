"""Convolution as an operator of MindSpore that calls oneDNN directly: see `onednn`."""

import functools
import itertools

import mindspore as ms
from mindspore import nn, ops

from ..model_utils.cpu import calls_onednn
from . import onednn
from .device import on_cpu


class DirectConvolution(nn.Cell):
    """(x (N, in, H, W), weight (out, in, kH, kW)) -> (N, out, H', W'), float32, with both gradients.

    Args:
        stride: of both axes.
        padding: zeros above, below, on the left and on the right.
    """

    def __init__(self, *, stride: int, padding: tuple[int, int, int, int]):
        super().__init__()
        how = {"stride": stride, "padding": padding}

        def convolution(x, weight):
            return _convolution(x.shape, weight.shape, stride, padding)

        def forward(x, weight):
            return convolution(x, weight).forward(x, weight)

        def to_x(dy, weight, x):
            return convolution(x, weight).to_x(dy, weight)

        def to_weight(x, dy, weight):
            return convolution(x, weight).to_weight(x, dy)

        self.forward = _operator(forward, lambda x, weight: list(onednn.output_shape(x, weight, **how)))
        self.to_x = _operator(to_x, lambda dy, weight, x: list(x))
        self.to_weight = _operator(to_weight, lambda x, dy, weight: list(weight))

    def construct(self, x, weight):
        return self.forward(x, weight)

    def bprop(self, x, weight, out, dout):
        return self.to_x(dout, weight, x), self.to_weight(x, dout, weight)


_number = itertools.count()


@functools.lru_cache(maxsize=256)
def _convolution(x, weight, stride, padding) -> onednn.Convolution:
    return onednn.Convolution(x, weight, stride=stride, padding=padding)


def _operator(function, shape_of) -> ops.Custom:
    # MindSpore tells operators apart by the name of their function.
    function.__name__ += f"_{next(_number)}"
    return ops.Custom(function, shape_of, lambda first, *others: first, func_type="pyfunc")


def is_direct() -> bool:
    """Whether convolutions that are built now call oneDNN directly on this device."""
    return on_cpu() and calls_onednn() and onednn.library() is not None
