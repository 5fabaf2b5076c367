# SPDX-License-Identifier: Apache-2.0
"""From the bytes of pictures to the network's input, on the device."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn


class Pixels(nn.Cell):
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), (value - mean) / std per channel, in float32 always.

    With `partners` (N,) int32 and `weights` (N,) float32, image n becomes weights[n] times itself plus the
    rest times image partners[n]: mixup (Zhang et al., arXiv 1710.09412). Images that are float32 already are
    taken as normalised, (N, 3, H, W).

    Args:
        mean: per channel, 0..255.
        std: per channel, 0..255.
    """

    keep_float32 = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.mean = ms.Tensor(np.asarray(mean, np.float32))
        self.std = ms.Tensor(np.asarray(std, np.float32))

    def construct(self, images, partners=None, weights=None):
        x = images
        if images.dtype == ms.uint8:
            x = ((images.astype(ms.float32) - self.mean) / self.std).transpose(0, 3, 1, 2)
        if partners is not None:
            share = weights.reshape(-1, 1, 1, 1)
            x = x * share + x[partners] * (1 - share)
        return x
