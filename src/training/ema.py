# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a network's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms
from mindspore import nn, ops

from ..checkpoint.file import AVERAGED


def _approach(share, average, weight):
    return ops.assign_add(average, share * (weight - average))


def _meet(share, average, weight):
    return ops.assign(weight, ops.assign_add(average, share * (weight - average)))


class EMA(nn.Cell):
    """average = d * average + (1 - d) * weight, over all parameters and running statistics of a network.

    d is `decay`, or with `warmup` min(decay, (1 + t) / (10 + t)) after t updates, so that the first weights
    are forgotten early in a short run (TensorFlow's ExponentialMovingAverage with num_updates).

    With `every` > 1 the average follows in updates 1, 1 + every, ..., by `decay` to the power of `every`
    (`update_ema` of cifar10-fast): as long a memory for less work.

    Lookahead (Zhang et al., arXiv 1907.08610, as airbench94.py has it) lets the weights go on from the
    average: in updates every, 2 every, ... they become it, with d = decay ** every * (share of the run) ** 3.
    Weights run ahead freely at first, and are held back by their past in the end. What a run ends with is
    the average, as with EMA.

    State: "ema.<parameter name>", float32, equal to the weights at the start.

    Args:
        decay: in [0, 1).
        warmup: see above; Lookahead has none.
        every: interval in updates.
        lookahead: see above.
    """

    def __init__(
        self, network: nn.Cell, *, decay: float, warmup: bool, every: int = 1, lookahead: bool = False
    ):
        super().__init__(auto_prefix=False)
        self.decay = decay**every
        self.map = ops.HyperMap()
        self.share = 1 - self.decay  # in float64: of 1 - 0.9999, float32 has only four digits right
        self.warmup = warmup
        self.every = every
        self.lookahead = lookahead
        self.weights = ms.ParameterTuple(list(network.get_parameters()))
        self.averages = ms.ParameterTuple(
            [
                ms.Parameter(ms.Tensor(p.asnumpy()), name=AVERAGED + p.name, requires_grad=False)
                for p in self.weights
            ]
        )

    def construct(self, updates, share=0.0):
        """Takes in the weights after an update.

        Args:
            updates: its number, float32 scalar, 1 for the first; those that are skipped do not count.
            share: of the run that is made, float32 scalar, for Lookahead.
        """
        if self.lookahead:
            if ops.cast(updates, ms.int32) % self.every == 0:
                share = 1 - self.decay * share**3
                self.map(ops.partial(_meet, share), self.averages, self.weights)
        elif self.every == 1 or ops.cast(updates, ms.int32) % self.every == 1:
            self._follow(updates)
        return updates

    def _follow(self, updates):
        share = self.share
        if self.warmup:
            share = ops.maximum(ops.cast(share, ms.float32), 9 / (10 + updates))
        self.map(ops.partial(_approach, share), self.averages, self.weights)

    def keep_changes(self) -> None:
        """Within `applied`: the averages become what the network's parameters hold now."""
        for average, weight in zip(self.averages, self.weights):
            ops.assign(average, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block, the network's parameters hold the averages."""
        kept = [p.asnumpy().copy() for p in self.weights]
        for weight, average in zip(self.weights, self.averages):
            weight.set_data(ms.Tensor(average.asnumpy()))
        try:
            yield
        finally:
            for weight, value in zip(self.weights, kept):
                weight.set_data(ms.Tensor(value))
