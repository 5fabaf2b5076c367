# SPDX-License-Identifier: Apache-2.0
"""A network as little to compile as trains, with the recipe of a real run around it."""

import contextlib

from mindspore import nn, ops

from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.norm import batch_norm2d
from src.zoo import recipe_class_of

RESNET9 = recipe_class_of("resnet9")


class TinyNet(nn.Cell):
    """One convolution, as little to compile as trains: (N, 3, 32, 32) -> (N, num_classes)."""

    stages = ("conv.", "bn.")

    def __init__(self, *, num_classes, seed):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=2)
        self.bn = batch_norm2d(channels=4)
        self.linear = dense(in_channels=4, out_channels=num_classes, bias=False)
        initialise(self, seed=seed, weight=torch_default)

    def construct(self, x):
        return self.linear(ops.relu(self.bn(self.conv(x))).mean((2, 3)))


class WatchedBatches:
    """Training batches that call `watch(step, images, targets)` first; steps are counted from 1."""

    def __init__(self, batches, watch):
        self._batches, self._watch = batches, watch
        self.class_names = batches.class_names

    def __len__(self):
        return len(self._batches)

    def batches(self, start, stop):
        with contextlib.closing(self._batches.batches(start, stop)) as batches:
            for step, batch in enumerate(batches, start + 1):
                if self._watch is not None:
                    self._watch(step, *batch)
                yield batch


class TinyRecipe(RESNET9):
    def __init__(self, config, watch=None):
        super().__init__(config)
        self.watch = watch

    def network(self, *, num_classes):
        return TinyNet(num_classes=num_classes, seed=self.config.seed)

    def train_batches(self, *, rank=0, size=1):
        return WatchedBatches(super().train_batches(rank=rank, size=size), self.watch)
