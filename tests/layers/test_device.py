# SPDX-License-Identifier: Apache-2.0
"""Cells with a form for CPUs give it up on request, and compute the same."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers.device import on_cpu, use_plain_operators
from src.layers.norm import GroupNorm
from src.layers.pooling import MaxPool2d
from src.layers.weight_standardization import StdConv2d


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = StdConv2d(in_channels=3, out_channels=4, kernel_size=3)
        self.rest = nn.SequentialCell(GroupNorm(channels=4, groups=2), nn.ReLU(), MaxPool2d(2))
        weight = np.random.default_rng(0).normal(size=self.conv.weight.shape)
        self.conv.weight.set_data(ms.Tensor(weight.astype(np.float32)))

    def construct(self, x):
        return self.rest(self.conv(x))


@pytest.mark.usefixtures("graph_mode")
def test_all_cells_turn_to_the_plain_operators():
    assert on_cpu()
    fast, plain = Net().set_train(), Net().set_train()
    use_plain_operators(plain)
    for network, form in ((fast, True), (plain, False)):
        cells = [cell for _, cell in network.cells_and_names() if hasattr(cell, "on_cpu")]
        direct = [cell for cell in cells if isinstance(cell, StdConv2d)]  # on some processors alone
        assert [cell.on_cpu for cell in cells if cell not in direct] == [form] * 3
        assert form or not direct[0].on_cpu
    x = ms.Tensor(np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32))
    np.testing.assert_allclose(plain(x).asnumpy(), fast(x).asnumpy(), rtol=1e-4, atol=1e-5)
