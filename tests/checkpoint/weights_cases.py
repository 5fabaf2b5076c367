# SPDX-License-Identifier: Apache-2.0
"""What the tests of weights share: arrays of a network, other arrays for it, and a load that must fail."""

import numpy as np
import pytest
from mindspore import nn

from src.checkpoint.weights import WeightsError, load_weights
from src.common.errors import UserError
from src.layers.conv import dense
from src.layers.norm import GroupNorm

TORCH_LEAF = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def arrays_of(network) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def other_weights(network, seed=1) -> dict[str, np.ndarray]:
    """Other numbers for every parameter, running statistics included."""
    rng = np.random.default_rng(seed)
    return {p.name: rng.uniform(0.5, 2, p.shape).astype(np.float32) for p in network.get_parameters()}


def torch_named(weights) -> dict[str, np.ndarray]:
    named = {}
    for name, value in weights.items():
        prefix, _, leaf = name.rpartition(".")
        named[f"{prefix}.{TORCH_LEAF.get(leaf, leaf)}"] = value
        if leaf == "moving_variance":
            named[f"{prefix}.num_batches_tracked"] = np.array(7)
    return named


def holds(network, weights) -> bool:
    arrays = arrays_of(network)
    return arrays.keys() == weights.keys() and all((arrays[name] == weights[name]).all() for name in arrays)


def refused(network, source, **how) -> str:
    """The message; the network must be as it was."""
    before = arrays_of(network)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, source, **how)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert len(message.splitlines()) == 1
    assert holds(network, before)
    return message


class GroupNormed(nn.Cell):
    """A group normalisation and a dense layer, whose names end in the same words in PyTorch's naming."""

    def __init__(self):
        super().__init__()
        self.gn = GroupNorm(channels=4, groups=2)
        self.fc = dense(in_channels=4, out_channels=3)
