# SPDX-License-Identifier: Apache-2.0
"""Convolution with standardised weights."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from .conv import OwnConvolution
from .device import on_cpu

EPSILON = 1e-10


def standardised(weight: np.ndarray) -> np.ndarray:
    """(weight - mean) / sqrt(variance + 1e-10) per output channel, (O, I, kH, kW) float32, by float64."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + EPSILON)
    return flat.reshape(weight.shape).astype(np.float32)


class Standardise(nn.Cell):
    """What `standardised` says, in the graph; always in float32, where 1e-10 is not 0.

    A CPU does it by batch normalisation in training mode over the view (1, O, I * kH * kW, 1), which is the
    same function and three times faster, forward and backward. Exported files hold neither (`fold`).
    """

    keep_float32 = True

    def __init__(self, *, channels: int):
        super().__init__()
        self.on_cpu = on_cpu()
        if self.on_cpu:
            self.norm = ops.BatchNorm(is_training=True, epsilon=EPSILON, momentum=0.0)
            self.one = ms.Tensor(np.ones(channels, np.float32))
            self.zero = ms.Tensor(np.zeros(channels, np.float32))

    def construct(self, weight):
        if self.on_cpu:
            view = weight.reshape(1, weight.shape[0], -1, 1)
            return self.norm(view, self.one, self.zero, self.zero, self.one)[0].reshape(weight.shape)
        flat = weight.reshape(weight.shape[0], -1)
        flat = flat - flat.mean(axis=1, keep_dims=True)
        variance = ops.square(flat).mean(axis=1, keep_dims=True)
        return (flat * ops.rsqrt(variance + EPSILON)).reshape(weight.shape)


class StdConv2d(OwnConvolution):
    """Convolution whose weight is standardised first, per output channel (Qiao et al., arXiv 1903.10520).

    (N, in, H, W) -> (N, out, H', W'), without bias. In training and evaluation the stored weight is the raw
    one, as official BiT files hold it; `fold` puts the standardised one in its place, for inference.

    Args:
        padding: of `OwnConvolution`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: str = "symmetric",
    ):
        super().__init__(out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = ms.Parameter(ms.Tensor(np.zeros(shape, np.float32)), name="weight")
        self.standardise = Standardise(channels=out_channels)
        self.folded = False

    def fold(self):
        """Stores the standardised weight; from now on the cell is a plain convolution."""
        if not self.folded:
            self.weight.set_data(ms.Tensor(standardised(self.weight.asnumpy())))
        self.folded = True

    def construct(self, x):
        weight = self.weight if self.folded else self.standardise(self.weight)
        return self.convolve(x, weight.astype(x.dtype))
