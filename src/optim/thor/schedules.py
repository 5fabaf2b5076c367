# SPDX-License-Identifier: Apache-2.0
"""The rates of THOR's published recipes (get_thor_lr of the model zoo's ResNet)."""

from collections.abc import Sequence

import numpy as np


def thor(
    steps: int, *, lr: float, zero_step: float, power: float, milestones: Sequence[float], gamma: float
) -> np.ndarray:
    """`lr * (1 - t / zero_step) ** power * gamma ** (number of milestones <= t)` at step t, shape (steps,).

    Steps are counted from 1. Step `zero_step` has 0, and so have all behind it.

    Args:
        zero_step: where the curve comes to 0; 0: at the run's end.
    """
    done = np.arange(1, steps + 1, dtype=np.float64)
    left = np.maximum(0.0, 1 - done / (zero_step or steps))
    passed = np.sum([done >= milestone for milestone in milestones], axis=0)
    return lr * left**power * np.float64(gamma) ** passed
