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
) -> nn.Cell:
    """A convolution, (N, in, H, W) -> (N, out, H', W').

    Args:
        padding: zeros on each of the four sides; None: kernel_size // 2.

    `pad_mode="same"` pads even sizes on the right and bottom only when the stride is 2, and so shifts every
    sample by a pixel against the official networks: padding here is always explicit.
    """
    return nn.Conv2d(
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
