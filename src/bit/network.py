# SPDX-License-Identifier: Apache-2.0
"""ResNetV2 of Big Transfer (Kolesnikov et al., arXiv 1912.11370; google-research/big_transfer; own code).

Pre-activation bottlenecks, group normalisation and weight-standardised convolutions in place of batch
normalisation, so that large networks can be fine-tuned with few images a card:

    root    7x7 convolution, stride 2, padding 3; zero padding 1; 3x3 max-pool, stride 2      1/4 of the image
    body    4 blocks of bottleneck units, 256, 512, 1024, 2048 channels x width     1/4 1/8 1/16 1/32
    head    group normalisation, ReLU, mean over the image, 1x1 convolution with bias

| network | units       | width | parameters, 10 classes |
|---------|-------------|-------|------------------------|
| R50x1   | 3, 4, 6, 3  | 1     | 23,520,842             |
| R50x3   | 3, 4, 6, 3  | 3     | 211,235,530            |
| R101x1  | 3, 4, 23, 3 | 1     | 42,512,970             |
| R101x3  | 3, 4, 23, 3 | 3     | 381,851,338            |
| R152x2  | 3, 8, 36, 3 | 2     | 232,279,178            |
| R152x4  | 3, 8, 36, 3 | 4     | 928,422,154            |
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..layers.conv import conv2d
from ..layers.fold import fold_layers
from ..layers.init import initialise, torch_default
from ..layers.norm import GroupNorm
from ..layers.pooling import ZeroPaddedMaxPool2d
from ..layers.stages import BlockShape, four_stages
from ..layers.weight_standardization import StdConv2d
from .weights import translate

GROUPS = 32


class PreActBottleneck(nn.Cell):
    """1x1, 3x3 (with the stride), 1x1 convolution, each behind group normalisation and ReLU; and a shortcut.

    (N, in, H, W) -> (N, out, H / stride, W / stride). Where the shape changes, the shortcut is a 1x1
    convolution of the normalised input (He et al., arXiv 1603.05027).
    """

    def __init__(self, shape: BlockShape, *, padding: str):
        super().__init__()
        in_channels, out_channels, stride = shape.in_channels, shape.out_channels, shape.stride
        middle = out_channels // 4
        self.gn1 = GroupNorm(channels=in_channels, groups=GROUPS)
        self.conv1 = StdConv2d(in_channels=in_channels, out_channels=middle, kernel_size=1)
        self.gn2 = GroupNorm(channels=middle, groups=GROUPS)
        self.conv2 = StdConv2d(
            in_channels=middle, out_channels=middle, kernel_size=3, stride=stride, padding=padding
        )
        self.gn3 = GroupNorm(channels=middle, groups=GROUPS)
        self.conv3 = StdConv2d(in_channels=middle, out_channels=out_channels, kernel_size=1)
        self.downsample = None
        if shape.changes:
            self.downsample = StdConv2d(
                in_channels=in_channels, out_channels=out_channels, kernel_size=1, stride=stride
            )

    def construct(self, x):
        out = ops.relu(self.gn1(x))
        shortcut = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        out = self.conv2(ops.relu(self.gn2(out)))
        out = self.conv3(ops.relu(self.gn3(out)))
        return out + shortcut


class Head(nn.Cell):
    """Group normalisation, ReLU, mean over the image, and the classifier; `features` stops before it."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.gn = GroupNorm(channels=channels, groups=GROUPS)
        self.conv = conv2d(in_channels=channels, out_channels=num_classes, kernel_size=1, bias=True)

    def features(self, x):
        return ops.relu(self.gn(x)).mean(axis=(2, 3), keep_dims=True)

    def construct(self, x):
        return self.conv(self.features(x))


class ResNetV2(nn.Cell):
    """(N, 3, H, W) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        block_units: units of each of the four blocks.
        width_factor: factor on all channels; a multiple of 0.5, so that 32 groups divide them.
        stride_padding: "symmetric", the official padding of the 3x3 convolutions with stride 2, or "same",
            that of an earlier port, which shifts the image by a pixel at each of three convolutions.
        pretrained_head: "zero" makes a classifier of zeros, the official start of fine-tuning; otherwise it
            starts from PyTorch's default.
        recompute: keep only the input of each unit for the backward pass and compute its inside again: less
            memory for about a third more time.
        seed: seed of the initial weights.
    """

    head_prefix = "head.conv."

    def __init__(
        self,
        *,
        num_classes: int,
        block_units: Sequence[int],
        width_factor: float,
        stride_padding: str,
        pretrained_head: str,
        recompute: bool,
        seed: int,
    ):
        super().__init__()
        self.block_units = tuple(block_units)
        self.width_factor = width_factor
        root, *widths = (int(width_factor * channels) for channels in (64, 256, 512, 1024, 2048))
        self.root = nn.SequentialCell(
            OrderedDict(
                conv=StdConv2d(in_channels=3, out_channels=root, kernel_size=7, stride=2),
                pool=ZeroPaddedMaxPool2d(),
            )
        )
        blocks = OrderedDict()
        stages = four_stages(in_channels=root, out_channels=widths, block_units=block_units)
        for number, shapes in enumerate(stages, start=1):
            units = {
                f"unit{unit:02d}": PreActBottleneck(shape, padding=stride_padding)
                for unit, shape in enumerate(shapes, start=1)
            }
            blocks[f"block{number}"] = nn.SequentialCell(OrderedDict(units))
        self.body = nn.SequentialCell(blocks)
        self.head = Head(widths[-1], num_classes)
        initialise(self, seed=seed, weight=torch_default)
        if pretrained_head == "zero":
            weight = self.head.conv.weight
            weight.set_data(ms.Tensor(np.zeros(weight.shape, np.float32)))
        if recompute:
            for block in self.body:
                for unit in block:
                    unit.recompute()
                    unit.recompute_block = True

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, 2048 x width factor)."""
        x = self.head.features(self.body(self.root(x)))
        return x.reshape(x.shape[0], -1)

    def construct(self, x):
        x = self.head(self.body(self.root(x)))
        return x.reshape(x.shape[0], -1)

    def translate_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Official BiT and timm names and layouts to this network's (weights.py)."""
        return translate(weights, block_units=self.block_units, width_factor=self.width_factor)

    def fold(self) -> None:
        """Standardises the stored weights once and for all, for inference; training is over then."""
        fold_layers(self)
