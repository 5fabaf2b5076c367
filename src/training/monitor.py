# SPDX-License-Identifier: Apache-2.0
"""What a recipe may watch of its network while it trains."""

from collections.abc import Callable, Sequence
from typing import Protocol

import mindspore as ms
import numpy as np


class Monitor(Protocol):
    """Figures of the weights in training (not of their average), taken at every evaluation.

    Attributes:
        parameters: what it remembers from one measurement to the next, of any type, named "monitor.*". They
            are saved and restored with the run, so a figure "since the last measurement" outlives a resume.
    """

    parameters: Sequence[ms.Parameter]

    def measure(self, images: Callable[[], np.ndarray]) -> dict[str, float]:
        """Shares in per cent by name, as {"bit_flips": 1.2}; the names stay the same for the whole run.

        Rank 0 alone calls it; the figures are written as `monitor_<name>`. The network is in evaluation mode,
        and must be so afterwards, with the same weights and statistics.

        Args:
            images: reads the first evaluation batch, as the recipe's `inputs` cell takes it: uint8
                (B, H, W, 3), or float32 (B, 3, H, W), normalised.
        """
        ...
