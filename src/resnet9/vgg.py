# SPDX-License-Identifier: Apache-2.0
"""VGG 11, 13, 16 and 19 (Simonyan and Zisserman, arXiv 1409.1556: A, B, D and E) at CIFAR size; own code.

Five stages of 3x3 convolutions, each with batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) and an
activation, and a 2x2 max-pooling at the end of each stage. That leaves one pixel of a 3 x 32 x 32 image, so
one dense layer takes the place of the three of the paper, as usual for CIFAR.

| channels | 64 | 128 | 256 | 512 | 512 | parameters, 10 classes | multiply-adds an image |
|----------|----|-----|-----|-----|-----|------------------------|------------------------|
| vgg11    | 1  | 1   | 2   | 2   | 2   | 9,228,362              | 153 M                  |
| vgg13    | 2  | 2   | 2   | 2   | 2   | 9,413,066              | 229 M                  |
| vgg16    | 2  | 2   | 3   | 3   | 3   | 14,724,042             | 313 M                  |
| vgg19    | 2  | 2   | 4   | 4   | 4   | 20,035,018             | 398 M                  |
"""

from collections.abc import Sequence
from functools import partial

from mindspore import nn

from ..layers.conv import dense
from ..layers.init import initialise, torch_default
from ..layers.norm import batch_norm2d
from .parts import ConvBlock, ScaledClassifier

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(ScaledClassifier):
    """(N, 3, 32, 32) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        stage_convs: convolutions of each of the five stages.
        width_factor: factor on all channels.
        activation, celu_alpha, pool_before_norm, norm_momentum, norm_eps, norm_scale, ghost_batch,
            input_whitening, dirac_init, head_scale: see `network.ResNet9`. Behind airbench's whitening an
            image needs 33 pixels before it.
        seed: seed of the initial weights.
    """

    stages = ("stage1.", "stage2.", "stage3.", "stage4.", "stage5.")
    side_multiple = 32

    def __init__(
        self,
        *,
        num_classes: int,
        stage_convs: Sequence[int],
        width_factor: float,
        activation: str,
        celu_alpha: float,
        pool_before_norm: bool,
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
        block = partial(
            ConvBlock, act=activation, celu_alpha=celu_alpha, norm=norm, pool_before_norm=pool_before_norm
        )
        stages, channels = [], self.channels
        first = {"kernel_size": self.kernel_size, "identity": dirac_init and input_whitening != "none"}
        for width, convs in zip(_WIDTHS, stage_convs, strict=True):
            width = max(1, round(width * width_factor))
            blocks = []
            for pool in (*[1] * (convs - 1), 2):
                blocks.append(block(channels, width, pool=pool, **first))
                channels, first = width, {"identity": dirac_init}
            stages.append(nn.SequentialCell(blocks))
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = stages
        self.linear = dense(in_channels=channels, out_channels=num_classes)
        initialise(self, seed=seed, weight=torch_default)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, channels of the last stage).

        They are the mean of each map, which is 1 x 1 for images of 32 pixels.
        """
        x = self.stage3(self.stage2(self.stage1(self.whitened(x))))
        return self.stage5(self.stage4(x)).mean((2, 3))
