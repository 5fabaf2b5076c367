"""Convolution, batch normalisation and dense layer: the only callers of these `nn` classes.

MindSpore has announced that their signatures and defaults change after 2.9 (padding, bias, the meaning of
momentum), so every argument is passed by keyword and nothing is left to a default. Weights are zero until
`layers.init.initialise` fills them.
"""

from mindspore import nn

from .sync_bn import BatchNorm


def conv2d(
    *, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False
) -> nn.Cell:
    """A convolution with symmetric padding of kernel_size // 2, (N, in, H, W) -> (N, out, H', W').

    `pad_mode="same"` pads even sizes on the right and bottom only when the stride is 2, and so shifts every
    sample by a pixel against the official networks: padding here is always explicit.
    """
    return nn.Conv2d(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        dilation=1,
        group=1,
        has_bias=bias,
        weight_init="zeros",
        bias_init="zeros",
    )


def batch_norm2d(*, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> nn.Cell:
    """Batch normalisation over (N, H, W), (N, C, H, W) -> the same, scale 1 and offset 0 at the start.

    Args:
        momentum: weight of the *new* batch in the running statistics, as in the papers and in PyTorch
            (MindSpore's own argument is the weight of the old ones).
    """
    return BatchNorm(
        num_features=channels,
        eps=eps,
        momentum=1 - momentum,
        affine=True,
        gamma_init="ones",
        beta_init="zeros",
        moving_mean_init="zeros",
        moving_var_init="ones",
        use_batch_statistics=None,
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
