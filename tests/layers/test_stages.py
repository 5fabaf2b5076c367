# SPDX-License-Identifier: Apache-2.0
"""Shapes of blocks by the published tables, and the stem."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers.pooling import PaddedMaxPool2d
from src.layers.stages import BlockShape, four_stages, stem_cells


def test_the_blocks_of_a_resnet50():
    stages = four_stages(in_channels=64, out_channels=(256, 512, 1024, 2048), block_units=(3, 4, 6, 3))
    assert [len(shapes) for shapes in stages] == [3, 4, 6, 3]
    assert [shapes[0] for shapes in stages] == [
        BlockShape(64, 256, 1, is_first=True),
        BlockShape(256, 512, 2, is_first=False),
        BlockShape(512, 1024, 2, is_first=False),
        BlockShape(1024, 2048, 2, is_first=False),
    ]
    for shapes, channels in zip(stages, (256, 512, 1024, 2048)):
        assert set(shapes[1:]) == {BlockShape(channels, channels, 1, is_first=False)}


def test_a_block_changes_by_its_stride_or_its_channels():
    changes = [BlockShape(*shape, is_first=False).changes for shape in ((4, 4, 1), (4, 8, 1), (4, 4, 2))]
    assert changes == [False, True, True]
    (first, _), *_ = four_stages(in_channels=8, out_channels=(8, 8, 8, 8), block_units=(2, 1, 1, 1))
    assert not first.changes


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize(("kind", "kernel", "side"), [("imagenet", 7, 8), ("small", 3, 16)])
def test_the_stem(kind, kernel, side):
    conv, norm, pool = stem_cells(kind, channels=5)
    assert conv.weight.shape == (5, 3, kernel, kernel) and norm.gamma.shape == (5,)
    assert isinstance(pool, PaddedMaxPool2d if kind == "imagenet" else nn.Identity)
    image = ms.Tensor(np.zeros((2, 3, 32, 32), np.float32))
    assert pool(norm(conv(image))).shape == (2, 5, side, side)
