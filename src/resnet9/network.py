# SPDX-License-Identifier: Apache-2.0
"""ResNet9, the residual network of the DAWNBench CIFAR-10 entry (D. Page, cifar10-fast, MIT; own code).

Eight convolutions and one dense layer, for 3 x 32 x 32 images:

    prep       conv 3 -> 64                                  32 x 32
    layer1     conv 64 -> 128, max-pool 2, residual of two   16 x 16
    layer2     conv 128 -> 256, max-pool 2                    8 x 8
    layer3     conv 256 -> 512, max-pool 2, residual of two   4 x 4
    max-pool 4, dense 512 -> classes without bias, logits x 0.125

| widths            | classes | parameters | multiply-adds an image |
|-------------------|---------|------------|------------------------|
| 64, 128, 256, 512 | 10      | 6,573,120  | 379 M                  |
"""

from collections.abc import Sequence
from functools import partial

from ..layers.conv import dense
from ..layers.init import initialise, torch_default
from ..layers.norm import batch_norm2d
from ..layers.pooling import MaxPool2d
from .parts import ConvBlock, ScaledClassifier


class ResNet9(ScaledClassifier):
    """(N, 3, 32, 32) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        widths: channels of prep, layer1, layer2 and layer3.
        activation: a name of `layers.names.ACTIVATIONS`; `celu_alpha` is for CELU.
        pool_before_norm: pool right behind the convolution, before batch normalisation.
        head_scale: factor on the logits.
        norm_momentum, norm_eps, norm_scale, ghost_batch: of `layers.norm.batch_norm2d`.
        input_whitening: a form of `layers.input_whitening` in front, or "none". With dawnbench the
            convolution of prep is 1x1; with airbench an activation is between, and maps have 31 x 31 numbers.
        dirac_init: see `layers.init.dirac`; of all convolutions behind the first.
        seed: seed of the initial weights.
    """

    stages = ("prep.", "layer1", "layer2.", "layer3")
    side_multiple = 32

    def __init__(
        self,
        *,
        num_classes: int,
        widths: Sequence[int],
        activation: str,
        celu_alpha: float,
        pool_before_norm: bool,
        head_scale: float,
        norm_momentum: float,
        norm_eps: float,
        norm_scale: str,
        ghost_batch: int,
        input_whitening: str,
        dirac_init: bool,
        seed: int,
    ):
        super().__init__(
            input_whitening=input_whitening, act=activation, celu_alpha=celu_alpha, head_scale=head_scale
        )
        prep, one, two, three = widths
        norm = partial(
            batch_norm2d, momentum=norm_momentum, eps=norm_eps, scale=norm_scale, ghost_batch=ghost_batch
        )
        first = {"act": activation, "celu_alpha": celu_alpha, "norm": norm}
        block = {**first, "identity": dirac_init}
        down = {"pool": 2, "pool_before_norm": pool_before_norm, **block}
        self.prep = ConvBlock(
            self.channels,
            prep,
            kernel_size=self.kernel_size,
            identity=dirac_init and input_whitening != "none",
            **first,
        )
        self.layer1 = ConvBlock(prep, one, **down)
        self.layer1_res1 = ConvBlock(one, one, **block)
        self.layer1_res2 = ConvBlock(one, one, **block)
        self.layer2 = ConvBlock(one, two, **down)
        self.layer3 = ConvBlock(two, three, **down)
        self.layer3_res1 = ConvBlock(three, three, **block)
        self.layer3_res2 = ConvBlock(three, three, **block)
        self.pool = MaxPool2d(3 if input_whitening == "airbench" else 4)
        self.linear = dense(in_channels=three, out_channels=num_classes, bias=False)
        initialise(self, seed=seed, weight=torch_default)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, widths[3]): the largest value of each map."""
        x = self.layer1(self.prep(self.whitened(x)))
        x = x + self.layer1_res2(self.layer1_res1(x))
        x = self.layer3(self.layer2(x))
        return self.largest(x + self.layer3_res2(self.layer3_res1(x)))
