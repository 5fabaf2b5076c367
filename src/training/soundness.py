# SPDX-License-Identifier: Apache-2.0
"""Whether training can go on: losses that are not finite, and updates that are skipped without end."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..common.errors import UserError

# Updates that are skipped in a row, although the loss scale has nowhere to go, before the run stops.
MAX_SKIPPED = 20


class Unsound(UserError):
    """Training cannot go on: losses are not finite, or no update is made any more."""


class Row(NamedTuple):
    """What the train step put out for a batch; `step` is the batch's number, from 1."""

    step: int
    loss: float
    loss_scale: float
    overflow: float
    grad_norm: float
    parts: tuple[float, ...] = ()

    @classmethod
    def of(cls, step: int, *outputs: float) -> "Row":
        """A row from the train step's outputs, in their order."""
        return cls(step, *outputs[:4], outputs[4:])


class Soundness:
    """Looks at every batch's figures, in their order.

    Attributes:
        nonfinite: batches in a row, up to the last one, whose loss is not finite. Above 0, the weights are
            not worth keeping.

    Args:
        max_nonfinite: so many of them in a row end the run.
        updates: of the whole run; half of a short run's updates, skipped in a row, end it.
        accumulate: batches an update.
        dynamic: whether the loss scale falls after a skipped update, down to 1.
    """

    def __init__(self, *, max_nonfinite: int, updates: int, accumulate: int, dynamic: bool):
        self.nonfinite = 0
        self._skipped = 0
        self._max_nonfinite, self._accumulate, self._dynamic = max_nonfinite, accumulate, dynamic
        self._max_skipped = min(MAX_SKIPPED, max(2, updates // 2))

    def check(self, rows: Iterable[Row]) -> None:
        """Takes in further batches.

        Raises:
            Unsound: training cannot go on.
        """
        for row in rows:
            self.nonfinite = 0 if math.isfinite(row.loss) else self.nonfinite + 1
            if self.nonfinite >= self._max_nonfinite:
                raise Unsound(
                    f"the loss is {row.loss} at batch {row.step}, {self.nonfinite} batches in a row "
                    "(max_nonfinite_steps); lower lr, or use loss_scale dynamic with float16"
                )
            if row.step % self._accumulate:
                continue
            stuck = row.overflow and not (self._dynamic and row.loss_scale > 1)
            self._skipped = self._skipped + 1 if stuck else 0
            if self._skipped >= self._max_skipped:
                raise Unsound(
                    f"{self._skipped} updates in a row were skipped, up to batch {row.step}: gradients are "
                    f"not finite, and the loss scale stays at {row.loss_scale:g}; lower lr, "
                    "or use loss_scale dynamic with float16"
                )
