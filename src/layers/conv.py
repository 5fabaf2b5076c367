"""Convolution and dense layer: the only callers of `nn.Conv2d`, `nn.Dense` and `ops.Conv2D`.

MindSpore has announced that the signatures and defaults of the cells change after 2.9 (padding, bias), so
every argument is passed by keyword and nothing is left to a default. Weights are zero until
`layers.init.initialise` fills them.
"""

from mindspore import nn, ops

from ..common.errors import UserError
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
    arguments = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
        "stride": stride,
        "pad_mode": "pad",
        "padding": kernel_size // 2 if padding is None else padding,
        "dilation": 1,
        "group": 1,
        "has_bias": bias,
        "weight_init": "zeros",
        "bias_init": "zeros",
    }
    return EvenConv2d(**arguments) if even else nn.Conv2d(**arguments)


class EvenConv2d(nn.Conv2d):
    """A convolution for a 2x2 pooling right behind it: of odd maps it leaves out what the pooling drops.

    (N, in, H, W) -> (N, out, H, W) where H or W is even, and (N, out, H - 1, W - 1) where both are odd:
    without the last row and column, which no window of the pooling covers. The pooled map is the same, for
    27 % less compute on a map of 7 x 7 (15 x 15: 13 %, 31 x 31: 6 %).
    """

    def __init__(self, **arguments):
        super().__init__(**arguments)
        before = self.kernel_size[0] // 2
        self.shorter = ops.Conv2D(
            out_channel=self.out_channels,
            kernel_size=self.kernel_size,
            pad_mode="pad",
            pad=(before, before - 1, before, before - 1),
            stride=1,
        )

    def construct(self, x):
        if not (x.shape[2] % 2 and x.shape[3] % 2):
            return super().construct(x)
        y = self.shorter(x, self.weight)
        return self.bias_add(y, self.bias) if self.has_bias else y


def conv2d_operator(
    *, out_channels: int, kernel_size: int, stride: int = 1, padding: str = "symmetric"
) -> ops.Conv2D:
    """A convolution (x, weight) -> y for cells that make their weight themselves; no bias.

    Args:
        padding: "symmetric" (kernel_size // 2 on all sides) or "same" (MindSpore's and TensorFlow's: an even
            image with stride 2 gets its padding on the right and bottom alone).

    Raises:
        UserError: another padding.
    """
    if padding not in PADDINGS:
        raise UserError(f"padding is {padding!r}; known are {', '.join(PADDINGS)}")
    symmetric = padding == "symmetric"
    return ops.Conv2D(
        out_channel=out_channels,
        kernel_size=kernel_size,
        pad_mode="pad" if symmetric else "same",
        pad=kernel_size // 2 if symmetric else 0,
        stride=stride,
    )


def dense(*, in_channels: int, out_channels: int, bias: bool = True) -> nn.Cell:
    """x W^T + b, (N, in) -> (N, out)."""
    return nn.Dense(
        in_channels=in_channels,
        out_channels=out_channels,
        weight_init="zeros",
        bias_init="zeros",
        has_bias=bias,
        activation=None,
    )
