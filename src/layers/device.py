# SPDX-License-Identifier: Apache-2.0
"""Cells that compute in another way on a CPU: MindSpore's plain operators are slow there.

Such a cell has an attribute `on_cpu`, set from `on_cpu()` when it is built, and read when it runs. Both ways
compute the same function of the same parameters.
"""

import mindspore as ms
from mindspore import nn


def on_cpu() -> bool:
    """Whether what is built now runs on a CPU."""
    return ms.get_context("device_target") == "CPU"


def use_plain_operators(network: nn.Cell) -> None:
    """From now on every cell of `network` computes by the operators that other devices are fast with.

    For what is not to run on this CPU: an exported file, or an estimate of what a card keeps. Call it before
    the network is compiled: a graph keeps what it was compiled from.
    """
    for _, cell in network.cells_and_names():
        if hasattr(cell, "on_cpu"):
            cell.on_cpu = False
