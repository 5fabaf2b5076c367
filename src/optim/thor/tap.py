# SPDX-License-Identifier: Apache-2.0
"""A layer's Kronecker factors as gradients: whoever differentiates the loss gets them beside the weights'.

The Fisher matrix of a layer's weights is taken for A (x) G, with A over its inputs and G over the gradients
of its outputs (Martens and Grosse, arXiv 1503.05671; for convolutions Grosse and Martens, arXiv 1602.01407,
with derivatives at different positions taken for independent). Of N images and T output positions (1 in a
dense layer), with a the inputs under a kernel's window, and 1 if the layer has a bias, and g the gradient of
one image's loss by one position's outputs:

    A = sum over images and positions of a a^T / (N sqrt(T)),   G = the same of g g^T.

A (x) G is the Fisher block. T divides both alike. MindSpore's nn.thor divides both by N T, damps both by
sqrt(damping / T), and divides the update by T: by its formulas for Ascend the same update. (On GPUs it takes
the factors of a batch's mean image and mean gradient.)
"""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ...layers.conv import Window
from .blocks import blocks_of, split


class Tap(nn.Cell):
    """Stands on both sides of a layer: `inputs(x)` before it, `outputs(y)` behind; neither changes a thing.

    While it is `on`, the gradient of a loss (a mean over images) by `input_inverse` is A, and by
    `output_inverse` G, by blocks. The inverses' values play no part in it; their shapes are those of A and G.

    Args:
        name: of the layer's weight.
        weight_shape: (O, I) or (O, I, k, k).
        window: of a convolution; None: a dense layer.
        bias: whether the layer has one.
        most: rows of a block.

    Attributes:
        sizes: rows of A and of G.
        input_inverse, output_inverse: of the damped factors; the identity at first. Float32, "optim.thor.*".
    """

    def __init__(
        self, name: str, weight_shape: tuple[int, ...], *, window: Window | None, bias: bool, most: int
    ):
        super().__init__(auto_prefix=False)
        outputs, *inputs = weight_shape
        self.sizes = (math.prod(inputs) + bias, outputs)
        of_input = blocks_of(self.sizes[0], most=most, unit=math.prod(inputs[1:]))
        of_output = blocks_of(self.sizes[1], most=most)
        self.on = False
        self.input_inverse = _identity(f"optim.thor.input.{name}", *of_input)
        self.output_inverse = _identity(f"optim.thor.output.{name}", *of_output)
        self.input_factor = _InputFactor(of_input, window, bias)
        self.output_factor = _OutputFactor(of_output)

    def attach(self, layer: nn.Cell) -> None:
        """Becomes the tap of a convolution or dense layer; its inverses are no parameters of the network."""
        object.__setattr__(layer, "tap", self)

    def inputs(self, x):
        return self.input_factor(x, self.input_inverse) if self.on else x

    def outputs(self, y):
        return self.output_factor(y, self.output_inverse) if self.on else y


def _identity(name: str, count: int, side: int) -> ms.Parameter:
    value = np.repeat(np.eye(side, dtype=np.float32)[None], count, axis=0)
    return ms.Parameter(ms.Tensor(value), name=name, requires_grad=False)


class _Factor(nn.Cell):
    def __init__(self, blocks: tuple[int, int]):
        super().__init__(auto_prefix=False)
        self.blocks = blocks
        self.times_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x, inverse):
        return x

    def gram(self, rows, factor: float):
        """The blocks of factor R R^T, R: (size, columns)."""
        rows = split(rows, self.blocks[0], self.blocks[1])
        return self.times_transposed(rows, rows) * factor


class _InputFactor(_Factor):
    def __init__(self, blocks: tuple[int, int], window: Window | None, bias: bool):
        super().__init__(blocks)
        self.bias = bias
        self.is_convolution = window is not None
        if self.is_convolution:
            self.kernel, self.stride, self.padding, self.even = window
            inside = 0 if self.padding == "same" else self.padding
            self.patches = ops.Im2Col(self.kernel, self.stride, 1, inside)

    def bprop(self, x, inverse, out, dout):
        return dout, self.factor(ops.cast(x, ms.float32))

    def factor(self, x):
        """A of inputs (N, I, H, W) or (N, I), by blocks."""
        count, positions = x.shape[0], 1
        if self.is_convolution:
            x = self.under_the_window(x)
            positions = x.shape[2]
        rows = x.swapaxes(0, 1).reshape(-1, count * positions)
        if self.bias:
            rows = ops.concat((rows, ops.ones((1, count * positions), ms.float32)))
        return self.gram(rows, 1 / (count * positions**0.5))

    def under_the_window(self, x):
        """(N, I, H, W) -> (N, I k k, T): what each place in the window has at the output's positions."""
        count, channels, height, width = x.shape
        if self.kernel == 1 and self.stride == 1 and self.padding == 0:
            return x.reshape(count, channels, -1)
        if self.padding == "same":
            around = (self.same_padding(height), self.same_padding(width))
            x = ops.Pad(((0, 0), (0, 0), *around))(x)
        patches = self.patches(x)
        if self.even and height % 2 and width % 2:
            patches = patches.reshape(count, -1, height, width)[:, :, :-1, :-1]
        return patches.reshape(count, channels * self.kernel**2, -1)

    def same_padding(self, size: int):
        """Zeros before and behind an axis, for ceil(size / stride) positions."""
        more = max(0, ((size + self.stride - 1) // self.stride - 1) * self.stride + self.kernel - size)
        return more // 2, more - more // 2


class _OutputFactor(_Factor):
    def bprop(self, y, inverse, out, dout):
        return dout, self.factor(ops.cast(dout, ms.float32))

    def factor(self, gradient):
        """G of gradients (N, O, H, W) or (N, O) of a mean over N images, by blocks."""
        count, outputs = gradient.shape[:2]
        rows = gradient.swapaxes(0, 1).reshape(outputs, -1)
        positions = rows.shape[1] // count
        return self.gram(rows, count / positions**0.5)
