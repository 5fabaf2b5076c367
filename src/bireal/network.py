# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net (Liu et al., ECCV 2018, arXiv 1808.00278; IJCV 2020, arXiv 1811.01335; own code).

A ResNet with one convolution a block, whose inputs and weights are signs, and a real-valued shortcut around
each: sign, 1-bit convolution, batch normalisation, addition, and no activation behind it. Stem, the 1x1
convolutions of shortcuts that change the shape, normalisations and the classifier are real-valued.

| network     | blocks        | convolutions a block | widths              | parameters, 1000 classes |
|-------------|---------------|----------------------|---------------------|--------------------------|
| birealnet18 | 4, 4, 4, 4    | one 3x3              | 64, 128, 256, 512   | 11,689,512               |
| birealnet34 | 6, 8, 12, 6   | one 3x3              | 64, 128, 256, 512   | 21,797,672               |
| birealnet50 | 3, 4, 6, 3    | 1x1, 3x3, 1x1        | 256, 512, 1024, 2048| 25,729,064               |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import nn

from ..layers.activation import activation, is_sign
from ..layers.binary import BinaryConv2d, LeakyClip, ScaledSign, UnitDeviation
from ..layers.conv import conv2d, dense
from ..layers.fold import fold_layers
from ..layers.init import initialise, small_positive, torch_default
from ..layers.norm import batch_norm2d
from ..layers.pooling import AvgPool2d
from ..layers.stages import BlockShape, four_stages, stem_cells
from .weights import translate

EXPANSION = 4


@dataclass(frozen=True)
class Binarisation:
    """What a network does to the inputs and weights of its blocks.

    Attributes:
        activation: of each block's input, one of `layers.names.ACTIVATIONS`; a sign, or what stands for it.
        binary_weights: false for a real-valued network of the same shape and names.
        weight_gradient: of ScaledSign.
        divide_by_deviation: UnitDeviation before the activation (an earlier port's).
        clip_after_add: clip to [-1, 1] behind each addition and the stem (an earlier port's).
    """

    activation: str
    binary_weights: bool
    weight_gradient: str
    divide_by_deviation: bool
    clip_after_add: bool

    def input(self) -> nn.Cell:
        """What comes before a convolution."""
        cell = activation(self.activation)
        return nn.SequentialCell(UnitDeviation(), cell) if self.divide_by_deviation else cell

    def conv(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Cell:
        """A convolution of one bit, or its real-valued twin."""
        sizes = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
        }
        if self.binary_weights:
            conv = BinaryConv2d(**sizes, quantiser=ScaledSign(gradient=self.weight_gradient))
            conv.initialiser = small_positive
        else:
            conv = conv2d(**sizes)
        conv.input_bits = 1 if is_sign(self.activation) else 32
        return conv

    def after_add(self) -> nn.Cell:
        """What comes behind an addition."""
        return LeakyClip(slope=0.0) if self.clip_after_add else nn.Identity()


def _downsample(shape: BlockShape) -> nn.Cell | None:
    """The shortcut where the shape changes: mean of 2x2 pixels, 1x1 convolution, batch normalisation."""
    if not shape.changes:
        return None
    return nn.SequentialCell(
        AvgPool2d(2) if shape.stride > 1 else nn.Identity(),
        conv2d(in_channels=shape.in_channels, out_channels=shape.out_channels, kernel_size=1),
        batch_norm2d(channels=shape.out_channels),
    )


class BasicBlock(nn.Cell):
    """Sign, 3x3 convolution of one bit, batch normalisation, plus the input.

    (N, in, H, W) -> (N, out, H / stride, W / stride).
    """

    def __init__(self, shape: BlockShape, *, binarisation: Binarisation):
        super().__init__()
        self.activation = binarisation.input()
        self.binary_conv = binarisation.conv(shape.in_channels, shape.out_channels, stride=shape.stride)
        self.bn1 = batch_norm2d(channels=shape.out_channels)
        self.downsample = _downsample(shape)
        self.after_add = binarisation.after_add()

    def construct(self, x):
        out = self.bn1(self.binary_conv(self.activation(x)))
        return self.after_add(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Cell):
    """1x1, 3x3, 1x1 convolutions of one bit on two streams with a shortcut each: narrow and wide.

    (N, in / 4, H, W), (N, in, H, W) -> (N, out / 4, H', W'), (N, out, H', W'). The very first block's first
    convolution is real-valued, of a leaky clip of its input, and the narrow stream begins behind it.
    """

    def __init__(self, shape: BlockShape, *, binarisation: Binarisation):
        super().__init__()
        in_channels, out_channels, stride = shape.in_channels, shape.out_channels, shape.stride
        middle = out_channels // EXPANSION
        self.first = shape.is_first
        self.activation = binarisation.input()
        self.first_activation = LeakyClip() if self.first else None
        if self.first:
            self.conv1 = conv2d(in_channels=in_channels, out_channels=middle, kernel_size=1)
        else:
            self.conv1 = binarisation.conv(in_channels, middle, kernel_size=1)
        self.bn1 = batch_norm2d(channels=middle)
        self.conv2 = binarisation.conv(middle, middle, stride=stride)
        self.bn2 = batch_norm2d(channels=middle)
        self.conv3 = binarisation.conv(middle, out_channels, kernel_size=1)
        self.bn3 = batch_norm2d(channels=out_channels)
        self.down_conv1x1 = None
        if shape.changes and not self.first:
            self.down_conv1x1 = conv2d(
                in_channels=in_channels // EXPANSION, out_channels=middle, kernel_size=1
            )
        self.downsample = _downsample(shape)
        self.pooling = AvgPool2d(2) if stride > 1 else None
        self.after_add = binarisation.after_add()

    def construct(self, narrow, wide):
        if self.first:
            out = self.bn1(self.conv1(self.first_activation(wide)))
        else:
            out = self.bn1(self.conv1(self.activation(wide)))
            out = self.after_add(out + (narrow if self.down_conv1x1 is None else self.down_conv1x1(narrow)))
        narrow = self.bn2(self.conv2(self.activation(out)))
        narrow = self.after_add(narrow + (out if self.pooling is None else self.pooling(out)))
        out = self.bn3(self.conv3(self.activation(narrow)))
        return narrow, self.after_add(out + (wide if self.downsample is None else self.downsample(wide)))


class BiRealNet(nn.Cell):
    """(N, 3, H, W) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        block_units: blocks of each of the four stages.
        widths: channels of the four stages; bottlenecks put out four times as many.
        bottleneck: blocks of birealnet50.
        stem: "imagenet" is a 7x7 convolution and a max-pool, both with stride 2; "small" one 3x3 convolution
            with stride 2, for images of 64 pixels and less.
        activation, binary_weights, weight_gradient, divide_by_deviation, clip_after_add: see `Binarisation`.
        head_norm: batch normalisation of the features before the classifier (an earlier port's).
        seed: seed of the initial weights.
    """

    head_prefix = "fc."

    def __init__(
        self,
        *,
        num_classes: int,
        block_units: Sequence[int],
        widths: Sequence[int],
        bottleneck: bool,
        stem: str,
        activation: str,
        binary_weights: bool,
        weight_gradient: str,
        divide_by_deviation: bool,
        clip_after_add: bool,
        head_norm: bool,
        seed: int,
    ):
        super().__init__()
        binarisation = Binarisation(
            activation=activation,
            binary_weights=binary_weights,
            weight_gradient=weight_gradient,
            divide_by_deviation=divide_by_deviation,
            clip_after_add=clip_after_add,
        )
        self.bottleneck = bottleneck
        self.conv1, self.bn1, pool = stem_cells(stem, channels=widths[0])
        self.after_stem = binarisation.after_add()
        self.maxpool = pool
        block, factor = (Bottleneck, EXPANSION) if bottleneck else (BasicBlock, 1)
        outputs = [factor * width for width in widths]
        stages = [
            [block(shape, binarisation=binarisation) for shape in shapes]
            for shapes in four_stages(in_channels=widths[0], out_channels=outputs, block_units=block_units)
        ]
        if bottleneck:
            self.layers = nn.CellList([block for blocks in stages for block in blocks])
        else:
            self.layer1, self.layer2, self.layer3, self.layer4 = map(nn.SequentialCell, stages)
        channels = outputs[-1]
        self.head_norm = batch_norm2d(channels=channels) if head_norm else nn.Identity()
        self.fc = dense(in_channels=channels, out_channels=num_classes)
        initialise(self, seed=seed, weight=torch_default)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, channels of the last stage)."""
        x = self.maxpool(self.after_stem(self.bn1(self.conv1(x))))
        if self.bottleneck:
            narrow = x
            for block in self.layers:
                narrow, x = block(narrow, x)
        else:
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head_norm(x.mean(axis=(2, 3), keep_dims=True)).reshape(x.shape[0], -1)

    def construct(self, x):
        return self.fc(self.embed(x))

    def translate_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The official repository's names and shapes to this network's (weights.py)."""
        return translate(weights, {p.name: tuple(p.shape) for p in self.get_parameters()})

    def fold(self) -> None:
        """Leaves -1 and +1 as the weights of binary convolutions, for inference; training is over then.

        `head_norm` stays, as the features behind it are those that `embed` gives.
        """
        fold_layers(self)
