# SPDX-License-Identifier: Apache-2.0
"""A small network with every kind of layer whose training and evaluation differ, and its card."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.data.preparation import Preparation
from src.deploy.card import ModelCard

PREPARATION = Preparation(16, (125.0, 123.0, 114.0), (63.0, 62.0, 66.5))


class SmallNet(nn.Cell):
    """Convolution, batch norm, dropout, pooling and a dense layer: (N, 3, 16, 16) -> (N, classes)."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, pad_mode="pad", padding=1, has_bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(p=0.5)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.head = nn.Dense(8, classes)
        rng = np.random.default_rng(seed)
        for parameter in self.get_parameters():
            values = rng.normal(size=parameter.shape)
            values = np.abs(values) + 0.5 if "variance" in parameter.name else values
            parameter.set_data(ms.Tensor(values.astype(np.float32)))

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        features = self.pool(ops.relu(self.norm(self.conv(images))))
        return self.head(self.drop(features).mean((2, 3)))


@pytest.fixture(scope="session", autouse=True)
def graph_mode() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def make_network():
    """make_network(classes=4, seed=0) -> a new network, in training mode as a trainer would leave it."""

    def make(classes: int = 4, seed: int = 0) -> nn.Cell:
        network = SmallNet(classes, seed)
        network.set_train(True)
        return network

    return make


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return ModelCard(model="small", class_names=("ant", "bee", "cat", "dog"), preparation=PREPARATION)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(7, 3, 16, 16)).astype(np.float32)
