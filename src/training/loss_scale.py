# SPDX-License-Identifier: Apache-2.0
"""Loss scaling, so that small float16 gradients do not round to zero (Micikevicius et al., 1710.03740)."""

import mindspore as ms
from mindspore import nn, ops

# The scale grows no further. float16 overflows far below it, and half of infinity is still infinity.
_LARGEST = 2.0**64


class LossScale(nn.Cell):
    """Holds the scale, and after each update attempt decides the next one.

    none     1, and nothing is multiplied.
    fixed    `value` for ever.
    dynamic  starts at `value`; divided by `factor` (but never below 1) at an overflow, multiplied by it after
             `window` updates in a row without one (up to 2^64).

    State: "loss_scale.value" (float32 scalar) and "loss_scale.good_updates" (int32 scalar).
    """

    def __init__(self, mode: str, *, value: float = 65536.0, factor: float = 2.0, window: int = 2000):
        super().__init__(auto_prefix=False)
        self.active = mode != "none"
        self.dynamic = mode == "dynamic"
        self.factor = factor
        self.window = window
        self.value = ms.Parameter(
            ms.Tensor(value if self.active else 1.0, ms.float32), name="loss_scale.value", requires_grad=False
        )
        self.good_updates = ms.Parameter(
            ms.Tensor(0, ms.int32), name="loss_scale.good_updates", requires_grad=False
        )

    def construct(self, overflow):
        """Moves a dynamic scale after an update attempt; `overflow` is a bool scalar tensor."""
        good = ops.where(overflow, ops.zeros_like(self.good_updates), self.good_updates + 1)
        grow = ops.logical_and(good >= self.window, self.value < _LARGEST)
        value = ops.where(overflow, ops.maximum(self.value / self.factor, 1.0), self.value)
        ops.assign(self.value, ops.where(grow, value * self.factor, value))
        ops.assign(self.good_updates, ops.where(grow, ops.zeros_like(good), good))
        return overflow
