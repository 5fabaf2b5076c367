# SPDX-License-Identifier: Apache-2.0
"""Generalised-mean pooling and L2 normalisation, in float32 whatever the network's precision."""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

SMALLEST = 1e-6
_STEEPEST = 1e3  # slope of a normalised row, so that float16 (up to 65,504) holds its gradient


def l2_normalise(x):
    """Rows of length 1, x / (|x| + 1e-6), (..., D) -> (..., D) float32; a row of zeros stays so.

    Args:
        x: (..., D), scaled first by its largest magnitude, so that no square overflows or vanishes. The
            gradient of a row whose magnitudes are all below 1e-3 is reduced in proportion, down to none.
    """
    x = x.astype(ms.float32)
    largest = ops.stop_gradient(ops.abs(x).max(axis=-1, keepdims=True))
    constant = ops.stop_gradient(x)
    x = constant + ops.minimum(largest * _STEEPEST, 1.0) * (x - constant)
    largest = ops.maximum(largest, SMALLEST)
    scaled = x / largest
    # Under the root, a row of zeros would have no gradient but NaN.
    norm = ops.sqrt(ops.square(scaled).sum(axis=-1, keepdims=True) + 1e-24)
    return scaled / (norm + SMALLEST / largest)


class GeM(nn.Cell):
    """Generalised mean over the positions of each channel, (N, C, H, W) -> (N, C) float32.

    (mean_hw max(x, 1e-6)^p)^(1/p): Radenovic et al., arXiv 1711.02512, as MultiGrain (Berman et al., arXiv
    1902.05509) has it. p = 1 is the mean and p = infinity the maximum, both without the lower limit. The
    largest value of a channel is taken out of the power, so that it neither overflows nor vanishes.

    Args:
        exponent: p, above 0; infinity for the maximum.
        learn: make p a parameter, which starts from `exponent`.
        eval_exponent: p in evaluation, where it is another (MultiGrain's p* for a test resolution); 0: the
            same as in training.

    Raises:
        ValueError: an exponent out of range, or the maximum to be learnt.
    """

    keep_float32 = True

    def __init__(self, exponent: float = 3.0, *, learn: bool = False, eval_exponent: float = 0.0):
        super().__init__()
        if not exponent > 0 or not eval_exponent >= 0 or (learn and math.isinf(exponent)):
            raise ValueError(
                f"exponents must be positive, and finite to be learnt: {exponent}, {eval_exponent}"
            )
        self.p = ms.Parameter(ms.Tensor(np.float32(exponent)), name="p") if learn else exponent
        self.learn = learn
        self.eval_exponent = eval_exponent

    def construct(self, x):
        x = x.astype(ms.float32).reshape(x.shape[0], x.shape[1], -1)
        if self.eval_exponent > 0 and not self.training:
            return self._fixed(x, self.eval_exponent)
        if self.learn:
            return self._power_mean(x, self.p)
        return self._fixed(x, self.p)

    def _fixed(self, x, p):
        if p == 1:
            return x.mean(axis=2)
        if p == math.inf:
            return x.max(axis=2)
        return self._power_mean(x, p)

    def _power_mean(self, x, p):
        x = ops.maximum(x, SMALLEST)
        largest = ops.stop_gradient(x.max(axis=2, keepdims=True))
        mean = ops.pow(x / largest, p).mean(axis=2)
        return largest[:, :, 0] * ops.pow(mean, 1 / p)
