# SPDX-License-Identifier: Apache-2.0
"""What the CIFAR networks are made of: a whitened input, a block of a convolution, a scaled classifier."""

from collections import OrderedDict
from collections.abc import Callable

from mindspore import nn

from ..layers.activation import NON_DECREASING, activation
from ..layers.conv import conv2d
from ..layers.fold import fold_factor, fold_layers
from ..layers.init import dirac, torch_default
from ..layers.input_whitening import FORMS, whitening_conv
from ..layers.norm import batch_norm2d
from ..layers.pooling import MaxPool2d


class ConvBlock(nn.SequentialCell):
    """Convolution, batch normalisation, activation and, where `pool` > 1, maximum pooling.

    (N, in, H, W) -> (N, out, H / pool, W / pool). The pooling comes last, or right behind the convolution
    with `pool_before_norm` (a different network, faster: cifar10-fast's "bag of tricks").

    Args:
        norm: `batch_norm2d` with settings.
        identity: the convolution starts by copying its input, see `layers.init.dirac`.
        even: the convolution leaves out what a pooling right behind it drops, see `layers.conv.EvenConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        pool: int = 1,
        pool_before_norm: bool = False,
        act: str = "relu",
        celu_alpha: float = 1.0,
        norm: Callable[..., nn.Cell] = batch_norm2d,
        identity: bool = False,
        even: bool = False,
    ):
        cells = {
            "conv": conv2d(
                in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, even=even
            ),
            "bn": norm(channels=out_channels),
            "act": activation(act, celu_alpha=celu_alpha),
        }
        if identity:
            cells["conv"].initialiser = dirac(torch_default)
        order = list(cells)
        if pool > 1:
            cells["pool"] = MaxPool2d(pool)
            order.insert(1 if pool_before_norm else 2 if act in NON_DECREASING else 3, "pool")
        super().__init__(OrderedDict((name, cells[name]) for name in order))


class ScaledClassifier(nn.Cell):
    """Logits by `linear` on `embed`, times `head_scale`; a network adds these two and its own cells.

    Args:
        input_whitening: a form of `layers.input_whitening` in front, or "none". With dawnbench the first
            convolution is 1x1; with airbench an activation is between, and maps have a pixel less a side.
        act: a name of `layers.names.ACTIVATIONS`; `celu_alpha` is for CELU.
        head_scale: factor on the logits.

    Attributes:
        channels, kernel_size: how many come to the first convolution, and its own.
    """

    head_prefix = "linear."

    def __init__(self, *, input_whitening: str, act: str, celu_alpha: float, head_scale: float):
        super().__init__()
        whitened, smaller = input_whitening != "none", input_whitening == "airbench"
        self.whiten = whitening_conv(input_whitening) if whitened else nn.Identity()
        self.whiten_act = activation(act, celu_alpha=celu_alpha) if smaller else nn.Identity()
        self.channels = FORMS[input_whitening].channels if whitened else 3
        self.kernel_size = 1 if input_whitening == "dawnbench" else 3
        self.head_scale = head_scale

    def whitened(self, x):
        """Images -> what the first convolution gets."""
        return self.whiten_act(self.whiten(x))

    def largest(self, x):
        """(N, C, H, W) -> (N, C): the largest value of each map, by the network's `pool` where that fits."""
        side = self.pool.kernel_size
        if x.shape[2:] != (side, side):  # of images of another size than 32 x 32
            return x.max(axis=(2, 3))
        return self.pool(x).reshape(x.shape[0], -1)

    def construct(self, x):
        logits = self.linear(self.embed(x))
        return logits if self.head_scale == 1 else logits * self.head_scale

    def fold(self) -> None:
        """Leaves convolutions with bias and a scaled classifier, for inference; training is over then.

        A normalisation behind a pooling (`pool_before_norm`) stays if it has a negative scale.
        """
        fold_layers(self)
        fold_factor(self.linear, self.head_scale)
        self.head_scale = 1
