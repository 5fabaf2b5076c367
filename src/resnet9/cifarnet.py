# SPDX-License-Identifier: Apache-2.0
"""CifarNet, the network of airbench (K. Jordan, arXiv 2404.00498, cifar10-airbench, MIT; own code).

A fixed 2x2 whitening convolution, then three groups, for 3 x 32 x 32 images:

    whiten     conv 2x2 3 -> 24 with bias, GELU              31 x 31
    group1     conv 24 -> 64, max-pool 2, conv 64 -> 64      15 x 15
    group2     conv 64 -> 256, max-pool 2, conv 256 -> 256     7 x 7
    group3     conv 256 -> 256, max-pool 2, conv 256 -> 256    3 x 3
    max-pool 3, dense 256 -> classes without bias, logits / 9

Each 3x3 convolution has a batch normalisation behind it, or behind the pooling, and then a GELU. The scale of
the normalisation is fixed. Most filters start as the identity (`dirac_init`).

| recipe                    | widths        | convs | parameters | multiply-adds | skip_unpooled |
|---------------------------|---------------|-------|------------|---------------|---------------|
| airbench94, and its Muon  | 64, 256, 256  | 2     | 1,971,352  | 118,147,360   | 105,360,160   |
| airbench95                | 128, 384, 384 | 2     | 4,604,440  | 301,560,864   | 269,793,312   |
| airbench96                | 128, 384, 512 | 3     | 9,915,416  | 451,967,264   | 414,448,928   |

Parameters are the trained ones, of 10 classes; multiply-adds are those of an image.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from mindspore import nn

from ..layers.activation import activation as activation_cell
from ..layers.conv import conv2d, dense
from ..layers.init import dirac, initialise, torch_default
from ..layers.norm import batch_norm2d
from ..layers.pooling import MaxPool2d
from .parts import ConvBlock, ScaledClassifier


class CifarNet(ScaledClassifier):
    """(N, 3, 32, 32) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        widths: channels of the three groups.
        group_convs: convolutions of a group, 2 or 3.
        unit_head: the classifier's weights start with a standard deviation of 1.
        skip_unpooled: the first convolution of a group leaves out what the pooling drops; the same function.
        activation, celu_alpha, norm_momentum, norm_eps, norm_scale, ghost_batch, input_whitening, dirac_init,
            head_scale: see `network.ResNet9`.
        seed: seed of the initial weights.
    """

    stages = ("whiten.", "group1.", "group2.", "group3.")

    def __init__(
        self,
        *,
        num_classes: int,
        widths: Sequence[int],
        group_convs: int,
        unit_head: bool,
        skip_unpooled: bool,
        activation: str,
        celu_alpha: float,
        norm_momentum: float,
        norm_eps: float,
        norm_scale: str,
        ghost_batch: int,
        input_whitening: str,
        dirac_init: bool,
        head_scale: float,
        seed: int,
    ):
        super().__init__(
            input_whitening=input_whitening, act=activation, celu_alpha=celu_alpha, head_scale=head_scale
        )
        norm = partial(
            batch_norm2d, momentum=norm_momentum, eps=norm_eps, scale=norm_scale, ghost_batch=ghost_batch
        )
        block = {"act": activation, "celu_alpha": celu_alpha, "norm": norm}
        inner = {**block, "identity": dirac_init}
        outer = {
            "kernel_size": self.kernel_size,
            "identity": dirac_init and input_whitening != "none",
            "even": skip_unpooled,
        }
        groups, channels = [], self.channels
        for width in widths:
            first = ConvBlock(channels, width, pool=2, pool_before_norm=True, **block, **outer)
            second = ConvBlock(width, width, **inner)
            groups.append(
                nn.SequentialCell(first, second if group_convs == 2 else Residual(second, width, **inner))
            )
            channels, outer = width, {"identity": dirac_init, "even": skip_unpooled}
        self.group1, self.group2, self.group3 = groups
        self.pool = MaxPool2d(3)
        self.linear = dense(in_channels=channels, out_channels=num_classes, bias=False)
        if unit_head:
            self.linear.initialiser = unit_deviation
        initialise(self, seed=seed, weight=torch_default)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, widths[2]): the largest value of each map."""
        return self.largest(self.group3(self.group2(self.group1(self.whitened(x)))))


class Residual(nn.Cell):
    """act(x + norm(conv(block(x)))), (N, channels, H, W) -> the same: airbench96's third convolution."""

    def __init__(
        self,
        block: nn.Cell,
        channels: int,
        *,
        act: str,
        celu_alpha: float,
        norm: Callable[..., nn.Cell],
        identity: bool,
    ):
        super().__init__()
        self.block = block
        self.conv = conv2d(in_channels=channels, out_channels=channels, kernel_size=3)
        if identity:
            self.conv.initialiser = dirac(torch_default)
        self.bn = norm(channels=channels)
        self.act = activation_cell(act, celu_alpha=celu_alpha)

    def construct(self, x):
        return self.act(x + self.bn(self.conv(self.block(x))))


def unit_deviation(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """`torch_default`, divided by the standard deviation of what was drawn: airbench94_muon's classifier."""
    weights = torch_default(rng, shape)
    return weights / weights.std(ddof=1)
