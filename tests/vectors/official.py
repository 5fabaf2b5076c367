# SPDX-License-Identifier: Apache-2.0
"""What tests against official numbers share: their files, how far off a result is, and one training step."""

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import nn

from src.layers.losses import CrossEntropy
from tests.vectors.fill import fill


def read(file: str) -> SimpleNamespace:
    """The arrays of a file of this folder, and the images that they belong to."""
    with np.load(Path(__file__).parent / file) as arrays:
        numbers = SimpleNamespace(**arrays)
    numbers.images = fill(str(numbers.input_name), tuple(numbers.input_shape))
    return numbers


def state(names: Iterable[str], shapes: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights of those names and shapes, which are text, as "(64, 3, 7, 7)"."""
    shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in shapes]
    return {name: fill(name, shape) for name, shape in zip(map(str, names), shapes, strict=True)}


def error(result, expected) -> float:
    """The largest difference, in parts of the largest magnitude."""
    return float(np.abs(np.asarray(result, np.float64) - expected).max() / np.abs(expected).max())


def training_step(network: nn.Cell, images, labels) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Mean cross-entropy, logits, and the gradient of every parameter by its name."""
    network.set_train()
    cross_entropy, parameters = CrossEntropy(), network.trainable_params()

    def forward(images, labels):
        logits = network(images)
        return cross_entropy(logits, labels), logits

    step = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters), has_aux=True)
    (loss, logits), gradients = step(ms.Tensor(images), ms.Tensor(labels.astype(np.int32)))
    by_name = {p.name: g.asnumpy() for p, g in zip(parameters, gradients, strict=True)}
    return loss.asnumpy(), logits.asnumpy(), by_name
