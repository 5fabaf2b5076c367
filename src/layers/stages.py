# SPDX-License-Identifier: Apache-2.0
"""What residual networks of four stages share: the stem, and the shapes of their blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mindspore import nn

from .conv import conv2d
from .norm import batch_norm2d
from .pooling import PaddedMaxPool2d

_KERNELS = {"imagenet": 7, "small": 3}


def stem_cells(kind: str, *, channels: int) -> tuple[nn.Cell, nn.Cell, nn.Cell]:
    """The first convolution, its batch normalisation and the pooling; the activation is the network's.

    "imagenet": 7x7 convolution and 3x3 max-pool, (N, 3, H, W) -> (N, channels, H / 4, W / 4). "small", for
    images of 64 pixels and less: 3x3 convolution and no pooling, -> (N, channels, H / 2, W / 2).
    """
    conv = conv2d(in_channels=3, out_channels=channels, kernel_size=_KERNELS[kind], stride=2)
    pool = PaddedMaxPool2d() if kind == "imagenet" else nn.Identity()
    return conv, batch_norm2d(channels=channels), pool


@dataclass(frozen=True)
class BlockShape:
    """Of one block, (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride).

    Attributes:
        is_first: it is the first block of the network.
    """

    in_channels: int
    out_channels: int
    stride: int
    is_first: bool

    @property
    def changes(self) -> bool:
        """Whether the output has another shape than the input."""
        return self.stride > 1 or self.in_channels != self.out_channels


def four_stages(
    *, in_channels: int, out_channels: Sequence[int], block_units: Sequence[int]
) -> list[list[BlockShape]]:
    """The shapes of all blocks, stage by stage: the first block of stages 2, 3 and 4 halves the image.

    Args:
        in_channels: of the stem.
        out_channels: of each stage.
        block_units: blocks of each stage.
    """

    def shapes(stage: int) -> Iterator[BlockShape]:
        before = out_channels[stage - 1] if stage else in_channels
        yield BlockShape(before, out_channels[stage], 2 if stage else 1, is_first=stage == 0)
        for _ in range(1, block_units[stage]):
            yield BlockShape(out_channels[stage], out_channels[stage], 1, is_first=False)

    return [list(shapes(stage)) for stage in range(4)]
