# SPDX-License-Identifier: Apache-2.0
"""Quantisers of 1-bit networks: signs forward, and what stands in for their gradient backward.

sign(0) is +1 everywhere here, in activations and in weights: one bit has no third value, packed inference
takes the sign bit, and the paper's own Caffe code has weights so. `torch.sign` gives 0 there, which the
official PyTorch code inherits; no number of a trained network is exactly 0, so the two agree on it.

Signs and scales compute in float32 under mixed precision: alpha and the slopes are small numbers.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError
from .conv import OwnConvolution
from .names import WEIGHT_GRADIENTS


def binary_sign(x):
    """+1 where x >= 0, else -1, in the type of x.

    `ops.sign` gives 0 at 0 and `ops.where` takes twice as long on a CPU.
    """
    return (x >= 0).astype(x.dtype) * 2 - 1


class StraightThrough(nn.Cell):
    """Calls `rule`, a cell whose `bprop` stands in for the gradient, with float32 input.

    Mixed precision casts the input of each cell, but of a cell with a `bprop` of its own it does not cast the
    gradient back: a float16 input would get a float32 gradient. Around `rule`, this cell has both casts.
    """

    keep_float32 = True

    def __init__(self, rule: nn.Cell):
        super().__init__()
        self.rule = rule

    def construct(self, x):
        return self.rule(x)


class ApproxSign(StraightThrough):
    """sign(x), with the slope of a piecewise quadratic (Liu et al., Bi-Real Net, arXiv 1808.00278).

    forward: +1 where x >= 0, else -1. Backward: dx = dy * max(0, 2 - 2 |x|), the derivative of
    2x + x^2 on [-1, 0) and 2x - x^2 on [0, 1): a closer fit to the step than a clipped line.
    Any shape.
    """

    def __init__(self):
        super().__init__(_ApproxSign())


class _ApproxSign(nn.Cell):
    keep_float32 = True

    def construct(self, x):
        return binary_sign(x)

    def bprop(self, x, out, dout):
        return (dout * ops.relu(2 - 2 * ops.abs(x)),)


class SteSign(StraightThrough):
    """sign(x), with the slope of a clipped line (Hubara et al., BinaryNet, arXiv 1602.02830).

    forward: +1 where x >= 0, else -1. Backward: dx = dy where |x| <= 1, else 0. Any shape.
    """

    def __init__(self):
        super().__init__(_SteSign())


class _SteSign(nn.Cell):
    keep_float32 = True

    def construct(self, x):
        return binary_sign(x)

    def bprop(self, x, out, dout):
        return (dout * (ops.abs(x) <= 1).astype(dout.dtype),)


class ScaledSign(StraightThrough):
    """alpha * sign(w), alpha the mean of |w| in each filter; (O, ...) -> the same shape.

    The scale is XNOR-Net's (Rastegari et al., arXiv 1603.05279) and a constant for the gradient.

    Args:
        gradient: "clipped" is Bi-Real Net's: dw = dy where |w| <= 1, else 0, not multiplied by alpha.
            "scaled_identity" is that of an earlier port: dw = alpha * dy, wherever w is.
    """

    def __init__(self, *, gradient: str = "clipped"):
        if gradient not in WEIGHT_GRADIENTS:
            raise UserError(f"gradient is {gradient!r}; known are {', '.join(WEIGHT_GRADIENTS)}")
        super().__init__(_ScaledSign(clipped=gradient == "clipped"))


class _ScaledSign(nn.Cell):
    keep_float32 = True

    def __init__(self, *, clipped: bool):
        super().__init__()
        self.clipped = clipped

    def construct(self, w):
        flat = w.reshape(w.shape[0], -1)
        return (ops.abs(flat).mean(axis=1, keep_dims=True) * binary_sign(flat)).reshape(w.shape)

    def bprop(self, w, out, dout):
        if self.clipped:
            return (dout * (ops.abs(w) <= 1).astype(dout.dtype),)
        return (dout * ops.abs(out),)


class LeakyClip(nn.Cell):
    """x within [-1, 1], and beyond it a line of slope 0.1; any shape.

    What stands in for the sign while a real-valued network is prepared to become a binary one (Liu et al.,
    arXiv 1808.00278). `slope` 0 is the clip that comes after it.
    """

    def __init__(self, *, slope: float = 0.1):
        super().__init__()
        self.slope = slope

    def construct(self, x):
        clipped = ops.minimum(ops.maximum(x, -1.0), 1.0)
        return clipped + self.slope * (x - clipped) if self.slope else clipped


class UnitDeviation(nn.Cell):
    """x / sqrt(variance of an image over its channels and pixels), (N, C, H, W) -> the same, in training.

    It does not change signs, only which values ApproxSign takes for saturated; so evaluation leaves it out.
    An earlier port's, which divides by 0 for a constant image: here 1e-10 is added to the variance.
    """

    keep_float32 = True

    def construct(self, x):
        if not self.training:
            return x
        flat = x.reshape(x.shape[0], -1)
        centred = flat - flat.mean(axis=1, keep_dims=True)
        variance = ops.square(centred).mean(axis=1, keep_dims=True)
        return (flat * ops.rsqrt(variance + 1e-10)).reshape(x.shape)


class BinaryConv2d(OwnConvolution):
    """Convolution with weights of one bit and a scale a filter, (N, in, H, W) -> (N, out, H', W'), no bias.

    The stored weight is the real one that training moves. The border is 0, neither +1 nor -1, as officially.

    Args:
        quantiser: from the stored weight to the used one, as `ScaledSign()`.

    Attributes:
        input_bits: 1 where signs come in, else 32.
    """

    weight_bits = 1

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        quantiser: nn.Cell,
    ):
        super().__init__(out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = ms.Parameter(ms.Tensor(np.zeros(shape, np.float32)), name="weight")
        self.quantiser = quantiser  # None once it is folded
        self.input_bits = 1

    def construct(self, x):
        weight = self.weight if self.quantiser is None else self.quantiser(self.weight)
        return self.convolve(x, weight.astype(x.dtype))
