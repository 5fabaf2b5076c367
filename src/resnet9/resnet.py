# SPDX-License-Identifier: Apache-2.0
"""The CIFAR ResNets of 6n + 2 layers (He et al., arXiv 1512.03385, section 4.2); own code.

A 3x3 convolution, then three stages of n blocks of two 3x3 convolutions, with 16, 32 and 64 channels on
maps of 32, 16 and 8 pixels, the mean of each map, and a dense layer. A shortcut has no parameters (option A):
where a block halves the map, it takes every second pixel, and zeros for the new channels.

| model     | n  | parameters, 10 classes | multiply-adds an image | error of the paper, % |
|-----------|----|------------------------|------------------------|-----------------------|
| resnet20  | 3  | 269,722                | 40.6 M                 | 8.75                  |
| resnet32  | 5  | 464,154                | 68.9 M                 | 7.51                  |
| resnet44  | 7  | 658,586                | 97.2 M                 | 7.17                  |
| resnet56  | 9  | 853,018                | 125.5 M                | 6.97                  |
| resnet110 | 18 | 1,727,962              | 252.9 M                | 6.43                  |

Names of parameters are those of the usual PyTorch port (Y. Idelbayev, pytorch_resnet_cifar10), and so is the
place of the zeros: half before and half behind the channels of the shortcut.
"""

from functools import partial

from mindspore import nn, ops

from ..layers.activation import activation as activation_cell
from ..layers.conv import conv2d, dense
from ..layers.init import dirac, he_normal_fan_out, initialise, torch_default
from ..layers.norm import batch_norm2d
from .parts import ScaledClassifier

_WIDTHS = (16, 32, 64)


class ResNet(ScaledClassifier):
    """(N, 3, 32, 32) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        stage_blocks: blocks of each stage, n.
        width_factor: factor on all channels.
        activation, celu_alpha, norm_momentum, norm_eps, norm_scale, ghost_batch, input_whitening, dirac_init,
            head_scale: see `network.ResNet9`.
        seed: seed of the initial weights.
    """

    stages = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")

    def __init__(
        self,
        *,
        num_classes: int,
        stage_blocks: int,
        width_factor: float,
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
        act = partial(activation_cell, activation, celu_alpha=celu_alpha)
        one, two, three = (max(1, round(width * width_factor)) for width in _WIDTHS)

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Cell:
            shapes = [(in_channels, stride)] + [(out_channels, 1)] * (stage_blocks - 1)
            blocks = [Block(before, out_channels, stride=s, act=act, norm=norm) for before, s in shapes]
            return nn.SequentialCell(blocks)

        self.conv1 = conv2d(in_channels=self.channels, out_channels=one, kernel_size=self.kernel_size)
        self.bn1 = norm(channels=one)
        self.act = act()
        self.layer1 = stage(one, one, 1)
        self.layer2 = stage(one, two, 2)
        self.layer3 = stage(two, three, 2)
        self.linear = dense(in_channels=three, out_channels=num_classes)
        self.linear.initialiser = torch_default
        first = self.conv1 if input_whitening == "none" else self.whiten
        first.initialiser = he_normal_fan_out
        initialise(self, seed=seed, weight=dirac(he_normal_fan_out) if dirac_init else he_normal_fan_out)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, channels of the last stage): means of maps."""
        x = self.act(self.bn1(self.conv1(self.whitened(x))))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


class Block(nn.Cell):
    """act(bn2(conv2(act(bn1(conv1(x))))) + shortcut(x)), (N, C, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, act, norm):
        super().__init__()
        self.conv1 = conv2d(in_channels=in_channels, out_channels=out_channels, kernel_size=3, stride=stride)
        self.bn1 = norm(channels=out_channels)
        self.act = act()
        self.conv2 = conv2d(in_channels=out_channels, out_channels=out_channels, kernel_size=3)
        self.bn2 = norm(channels=out_channels)
        self.shortcut = nn.Identity() if stride == 1 else HalvedShortcut(out_channels - in_channels)

    def construct(self, x):
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(y + self.shortcut(x))


class HalvedShortcut(nn.Cell):
    """Every second row and column, between `more` channels of zeros: (N, C, H, W) -> (N, C + more, ...).

    Pixels are taken by a 1x1 mean with stride 2, the same numbers as x[:, :, ::2, ::2]: on a CPU 40 ms
    against 49 for 512 x 16 x 32 x 32, forward and backward.
    """

    def __init__(self, more: int):
        super().__init__()
        self.before, self.behind = more // 2, more - more // 2
        self.pick = ops.AvgPool(kernel_size=1, strides=2, pad_mode="valid")

    def construct(self, x):
        x = self.pick(x)
        n, _, height, width = x.shape
        parts = (x,)
        if self.before:
            parts = (ops.zeros((n, self.before, height, width), x.dtype), *parts)
        if self.behind:
            parts = (*parts, ops.zeros((n, self.behind, height, width), x.dtype))
        return ops.concat(parts, axis=1)
