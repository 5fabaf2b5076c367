# SPDX-License-Identifier: Apache-2.0
"""A network from a config: each argument of its signature is the key of that name."""

import inspect
from collections.abc import Callable

from mindspore import nn

from ..model_utils.cpu import use_fast_convolutions
from ..model_utils.keys import Keys
from .device import on_cpu


def network_keys(network_class: Callable[..., nn.Cell]) -> list[str]:
    """The config keys that a network is built from: the names in its signature but for `num_classes`."""
    return [name for name in inspect.signature(network_class).parameters if name != "num_classes"]


def build_network(network_class: Callable[..., nn.Cell], config: Keys, *, num_classes: int) -> nn.Cell:
    """A network with initial weights, each argument of its signature from the config key of that name."""
    if on_cpu():
        use_fast_convolutions()
    arguments = {name: getattr(config, name) for name in network_keys(network_class)}
    return network_class(num_classes=num_classes, **arguments)
