# SPDX-License-Identifier: Apache-2.0
"""Convolution and dense layer: the only callers of `nn.Conv2d`, `nn.Dense` and `ops.Conv2D`.

MindSpore has announced that the signatures and defaults of the cells change after 2.9 (padding, bias), so
every argument is passed by keyword and nothing is left to a default. Weights are zero until
`layers.init.initialise` fills them.
"""

from typing import NamedTuple

import mindspore as ms
from mindspore import nn, ops

from ..common.errors import UserError
from .direct_conv import direct_convolution, is_direct
from .names import PADDINGS


def conv2d(
    *,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = False,
    even: bool = False,
) -> nn.Cell:
    """A convolution, (N, in, H, W) -> (N, out, H', W').

    Args:
        padding: zeros on each of the four sides; None: kernel_size // 2.
        even: H' and W' are even, see `EvenConv2d`; an odd kernel above 1, stride 1.

    `pad_mode="same"` pads even sizes on the right and bottom only when the stride is 2, and so shifts every
    sample by a pixel against the official networks: padding here is always explicit.
    """
    kind = EvenConv2d if even else Conv2d
    return kind(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        pad_mode="pad",
        padding=kernel_size // 2 if padding is None else padding,
        dilation=1,
        group=1,
        has_bias=bias,
        weight_init="zeros",
        bias_init="zeros",
    )


class Window(NamedTuple):
    """What of its images a convolution sees.

    Attributes:
        kernel: rows and columns.
        stride: of both axes.
        padding: zeros on each side, or "same" (MindSpore's, TensorFlow's).
        even: it is that of an `EvenConv2d`.
    """

    kernel: int
    stride: int
    padding: int | str
    even: bool = False


class Convolution(nn.Cell):
    """What cells with a convolution share: how it is computed.

    Attributes:
        window: which places of the images it sees.
        tap: a cell whose `inputs` and `outputs` its images and results go through, or None.
    """

    window: Window
    tap: nn.Cell | None = None

    def _operators(
        self, *, out_channels: int, kernel_size: int, stride: int, padding: tuple[int, int, int, int] | str
    ) -> tuple:
        """MindSpore's operator (x, weight) -> y and, on a CPU that is faster with it, oneDNN called directly.

        Args:
            padding: zeros above, below, on the left and on the right, or "same" (MindSpore's, TensorFlow's).
        """
        same = padding == "same"
        plain = ops.Conv2D(
            out_channel=out_channels,
            kernel_size=kernel_size,
            pad_mode="same" if same else "pad",
            pad=0 if same else padding,
            stride=stride,
        )
        self.on_cpu = is_direct()
        # The gradient of a 1x1 kernel with a stride writes beyond the working memory that oneDNN asks for.
        unsafe = kernel_size == 1 and stride > 1
        if same or unsafe or not self.on_cpu:
            return plain, None
        return plain, direct_convolution(stride=stride, padding=padding)

    def _convolve(self, operators, x, weight):
        if self.tap is not None:
            return self.tap.outputs(self._compute(operators, self.tap.inputs(x), weight))
        return self._compute(operators, x, weight)

    def _compute(self, operators, x, weight):
        plain, direct = operators
        if self.on_cpu and direct is not None and _in_graph() and x.dtype == ms.float32:
            return direct(x, weight)
        return plain(x, weight)


def leave_convolutions_to_mindspore(network: nn.Cell) -> None:
    """None calls oneDNN directly from now on: its calls are of float32, and on no list of mixed precision."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, Convolution):
            cell.on_cpu = False


@ops.constexpr
def _in_graph() -> bool:
    """Without a graph a network is looked into, or sees images of many shapes."""
    return ms.get_context("mode") == ms.GRAPH_MODE


class Conv2d(nn.Conv2d, Convolution):
    """`nn.Conv2d` with symmetric padding."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.window = Window(self.kernel_size[0], self.stride[0], self.padding)
        self.operators = self._symmetric(shorter=0)

    def _symmetric(self, *, shorter: int) -> tuple:
        """The convolution that leaves out so many rows and columns at the end."""
        before = self.padding
        return self._operators(
            out_channels=self.out_channels,
            kernel_size=self.kernel_size[0],
            stride=self.stride[0],
            padding=(before, before - shorter, before, before - shorter),
        )

    def construct(self, x):
        return self._with_bias(self._convolve(self.operators, x, self.weight))

    def _with_bias(self, y):
        return self.bias_add(y, self.bias) if self.has_bias else y


class EvenConv2d(Conv2d):
    """A convolution for a 2x2 pooling right behind it: of odd maps it leaves out what the pooling drops.

    (N, in, H, W) -> (N, out, H, W) where H or W is even, and (N, out, H - 1, W - 1) where both are odd:
    without the last row and column, which no window of the pooling covers. The pooled map is the same, for
    27 % less compute on a map of 7 x 7 (15 x 15: 13 %, 31 x 31: 6 %).
    """

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.window = self.window._replace(even=True)
        self.shorter = self._symmetric(shorter=1)

    def construct(self, x):
        if x.shape[2] % 2 and x.shape[3] % 2:
            return self._with_bias(self._convolve(self.shorter, x, self.weight))
        return super().construct(x)


class OwnConvolution(Convolution):
    """A convolution without bias whose cell makes the used weight itself, by `convolve(x, weight)`.

    Args:
        padding: "symmetric" (kernel_size // 2 on all sides) or "same" (MindSpore's and TensorFlow's: an even
            image with stride 2 gets its padding on the right and bottom alone).

    Raises:
        UserError: another padding.
    """

    def __init__(self, *, out_channels: int, kernel_size: int, stride: int = 1, padding: str = "symmetric"):
        super().__init__()
        if padding not in PADDINGS:
            raise UserError(f"padding is {padding!r}; known are {', '.join(PADDINGS)}")
        each = kernel_size // 2
        self.window = Window(kernel_size, stride, each if padding == "symmetric" else padding)
        self.operators = self._operators(
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=(each,) * 4 if padding == "symmetric" else padding,
        )

    def convolve(self, x, weight):
        return self._convolve(self.operators, x, weight)


def dense(*, in_channels: int, out_channels: int, bias: bool = True) -> nn.Cell:
    """x W^T + b, (N, in) -> (N, out)."""
    return Dense(
        in_channels=in_channels,
        out_channels=out_channels,
        weight_init="zeros",
        bias_init="zeros",
        has_bias=bias,
        activation=None,
    )


class Dense(nn.Dense):
    """`nn.Dense`; `tap` as a convolution's."""

    tap: nn.Cell | None = None

    def construct(self, x):
        if self.tap is not None:
            return self.tap.outputs(super().construct(self.tap.inputs(x)))
        return super().construct(x)
