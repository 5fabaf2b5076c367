# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: float16 where it is fast, float32 where it must be."""

import mindspore as ms
from mindspore import nn

from ..layers.conv import leave_convolutions_to_mindspore
from .keys import AMP_LEVELS


def keeps_float32(cell: nn.Cell) -> bool:
    """Whether mixed precision leaves this cell, and all that is in it, in float32.

    Normalisations do (their variance loses its digits in float16), and every cell of ours that says so with
    a class attribute `keep_float32 = True`: powers, weight standardisation, binary scales, losses.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.SyncBatchNorm)
    return isinstance(cell, norms) or getattr(cell, "keep_float32", False)


def set_precision(network: nn.Cell, level: str) -> nn.Cell:
    """Prepares `network` in place for training and evaluation at that level; parameters stay float32.

    O0    float32 throughout.
    O2    float16, but for the cells that `keeps_float32` names. (MindSpore's own O2 forgets GroupNorm.)
    auto  MindSpore's list by operator: matrix products and convolutions in float16, the operators of its
          black list (`mindspore.amp.get_black_list()`) and the cells that `keeps_float32` names in float32.

    Returns `network`.
    """
    if level not in AMP_LEVELS:
        raise ValueError(f"amp level is {level!r}; known are {', '.join(AMP_LEVELS)}")
    if level == "O2":
        network.to_float(ms.float16)
    if level == "auto":
        ms.amp.auto_mixed_precision(network, "auto", ms.float16)
    if level != "O0":
        leave_convolutions_to_mindspore(network)
        for _, cell in network.cells_and_names():
            if keeps_float32(cell):
                cell.to_float(ms.float32)
    return network
