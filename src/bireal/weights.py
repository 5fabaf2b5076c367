# SPDX-License-Identifier: Apache-2.0
"""Weights in the official repository's names and shapes (liuzechun/Bi-Real-net, PyTorch)."""

import re
from collections.abc import Mapping

import numpy as np

# birealnet50's first block registers a convolution that its forward pass never calls.
_UNUSED = "layers.0.down_conv1x1.weight"


def translate(
    weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The same arrays by the network's names and in its shapes; names of no known kind stay.

    birealnet18 and 34 keep the weights of a binary convolution as a column, (out * in * 3 * 3, 1), named
    `binary_conv.weights`.

    Args:
        weights: arrays, or what has their `shape` and `reshape`.
        shapes: of the network's parameters.
    """
    own = {}
    for name, array in weights.items():
        if name == _UNUSED and _UNUSED not in shapes:
            continue
        name = re.sub(r"binary_conv\.weights$", "binary_conv.weight", name)
        shape = shapes.get(name, array.shape)
        is_column = len(array.shape) == 2 and array.shape[1] == 1 and len(shape) == 4
        own[name] = array.reshape(shape) if is_column and array.shape[0] == np.prod(shape) else array
    return own
