# SPDX-License-Identifier: Apache-2.0
"""MultiGrain's network (Berman et al., arXiv 1902.05509; own code): a ResNet that pools by generalised means.

The trunk is torchvision's ResNet (He et al., arXiv 1512.03385, with the stride on the 3x3 convolution), layer
by layer and name by name. The pooled feature map is the embedding; the classifier takes it as it is, and
whoever compares embeddings normalises them first.

| network              | blocks       | convolutions a block | embedding | parameters, 1000 classes |
|----------------------|--------------|----------------------|-----------|--------------------------|
| multigrain_resnet18  | 2, 2, 2, 2   | 3x3, 3x3             | 512       | 11,689,512               |
| multigrain_resnet34  | 3, 4, 6, 3   | 3x3, 3x3             | 512       | 21,797,672               |
| multigrain_resnet50  | 3, 4, 6, 3   | 1x1, 3x3, 1x1        | 2,048     | 25,557,032               |
| multigrain_resnet101 | 3, 4, 23, 3  | 1x1, 3x3, 1x1        | 2,048     | 44,549,160               |
| multigrain_resnet152 | 3, 8, 36, 3  | 1x1, 3x3, 1x1        | 2,048     | 60,192,808               |
"""

import math
from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..layers.conv import conv2d, dense
from ..layers.fold import fold_layers
from ..layers.gem import GeM, l2_normalise
from ..layers.init import he_normal_fan_out, initialise, torch_default
from ..layers.norm import batch_norm2d
from ..layers.stages import BlockShape, four_stages, stem_cells
from .weights import translate

EXPANSION = 4


def _downsample(shape: BlockShape) -> nn.Cell | None:
    """The shortcut where the shape changes."""
    if not shape.changes:
        return None
    return nn.SequentialCell(
        conv2d(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            kernel_size=1,
            stride=shape.stride,
        ),
        batch_norm2d(channels=shape.out_channels),
    )


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut, (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, shape: BlockShape):
        super().__init__()
        in_channels, width, stride = shape.in_channels, shape.out_channels, shape.stride
        self.conv1 = conv2d(in_channels=in_channels, out_channels=width, kernel_size=3, stride=stride)
        self.bn1 = batch_norm2d(channels=width)
        self.conv2 = conv2d(in_channels=width, out_channels=width, kernel_size=3)
        self.bn2 = batch_norm2d(channels=width)
        self.downsample = _downsample(shape)

    def construct(self, x):
        out = ops.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return ops.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Cell):
    """1x1, 3x3 and 1x1 convolution and a shortcut, (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    expansion = EXPANSION

    def __init__(self, shape: BlockShape):
        super().__init__()
        in_channels, out_channels, stride = shape.in_channels, shape.out_channels, shape.stride
        width = out_channels // EXPANSION
        self.conv1 = conv2d(in_channels=in_channels, out_channels=width, kernel_size=1)
        self.bn1 = batch_norm2d(channels=width)
        self.conv2 = conv2d(in_channels=width, out_channels=width, kernel_size=3, stride=stride)
        self.bn2 = batch_norm2d(channels=width)
        self.conv3 = conv2d(in_channels=width, out_channels=out_channels, kernel_size=1)
        self.bn3 = batch_norm2d(channels=out_channels)
        self.downsample = _downsample(shape)

    def construct(self, x):
        out = ops.relu(self.bn1(self.conv1(x)))
        out = ops.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return ops.relu(out + (x if self.downsample is None else self.downsample(x)))


def extended(x: ms.Tensor) -> ms.Tensor:
    """[x, 1], (N, C) -> (N, C + 1) float32: what is whitened, once its length is 1."""
    x = x.astype(ms.float32)
    return ops.concat((x, ops.ones((x.shape[0], 1), ms.float32)), axis=1)


class Whitening(nn.Cell):
    """PCA whitening of embeddings, (N, C) -> (N, d) float32 (multigrain/whitening.py fits it).

    (v - mean) P, where v is [x, 1], which the classifier's bias is folded into, divided by its length.

    Args:
        channels: C.
        dimension: d, C + 1 at most.
    """

    keep_float32 = True

    def __init__(self, channels: int, dimension: int):
        super().__init__()
        self.mean = ms.Parameter(
            ms.Tensor(np.zeros(channels + 1, np.float32)), name="mean", requires_grad=False
        )
        self.projection = ms.Parameter(
            ms.Tensor(np.eye(channels + 1, dimension, dtype=np.float32)),
            name="projection",
            requires_grad=False,
        )

    def construct(self, x):
        return ops.matmul(l2_normalise(extended(x)) - self.mean, self.projection)


class MultiGrain(nn.Cell):
    """(N, 3, H, W) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        block_units: blocks of each of the four stages.
        widths: channels of the four stages; bottlenecks put out four times as many.
        bottleneck: blocks of ResNet-50 and deeper.
        stem: "imagenet" is a 7x7 convolution and a max-pool, both with stride 2; "small" one 3x3 convolution
            with stride 2, for images of 64 pixels and less.
        pooling_exponent: p of the generalised mean, or "max".
        learn_pooling_exponent: p is trained too.
        eval_pooling_exponent: p in evaluation, or "max"; 0: that of training.
        whitening_dim: length of the whitened embedding; 0: it is not whitened.
        seed: seed of the initial weights.

    Attributes:
        training_embedding: set it for a loss of both: training mode then puts out (embedding, logits).
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
        pooling_exponent: float | str,
        learn_pooling_exponent: bool,
        eval_pooling_exponent: float | str,
        whitening_dim: int,
        seed: int,
    ):
        super().__init__()
        block = Bottleneck if bottleneck else BasicBlock
        outputs = [block.expansion * width for width in widths]
        channels = outputs[-1]
        self.training_embedding = False
        self.conv1, self.bn1, self.maxpool = stem_cells(stem, channels=widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.SequentialCell([block(shape) for shape in shapes])
            for shapes in four_stages(in_channels=widths[0], out_channels=outputs, block_units=block_units)
        )
        p, eval_p = (math.inf if p == "max" else p for p in (pooling_exponent, eval_pooling_exponent))
        self.pool = GeM(p, learn=learn_pooling_exponent, eval_exponent=eval_p)
        self.whitening = Whitening(channels, whitening_dim) if whitening_dim else None
        self.fc = dense(in_channels=whitening_dim or channels, out_channels=num_classes)
        self.fc.initialiser = torch_default
        initialise(self, seed=seed, weight=he_normal_fan_out)

    def features(self, x):
        """The last feature map, (N, 3, H, W) -> (N, C, H / 32, W / 32), with the small stem H / 16."""
        x = self.maxpool(ops.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def embed(self, x):
        """The embedding, not normalised, whitened where the network is: (N, 3, H, W) -> (N, D) float32."""
        pooled = self.pool(self.features(x))
        return pooled if self.whitening is None else self.whitening(pooled)

    def classify(self, pooled):
        """Logits of a pooled feature map, (N, C) -> (N, num_classes), the same with whitening and without."""
        if self.whitening is None:
            return self.fc(pooled)
        length = ops.sqrt(ops.square(extended(pooled)).sum(axis=1, keepdims=True))
        return self.fc(self.whitening(pooled)) * length

    def construct(self, x):
        pooled = self.pool(self.features(x))
        if self.training_embedding and self.training:
            return pooled, self.classify(pooled)
        return self.classify(pooled)

    def translate_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """torchvision's names, which are this network's, and the official MultiGrain's (weights.py)."""
        own = {p.name for p in self.get_parameters()}
        return translate(weights, own, 0.0 if "pool.p" in own else self.pool.p)

    def fold(self) -> None:
        """Leaves convolutions with bias and no normalisation, for inference; training is over then.

        The whitening stays, as it makes the embedding, and the classifier is of what it puts out.
        """
        fold_layers(self)
