# SPDX-License-Identifier: Apache-2.0
"""One training step as one cell: the same graph for every model and every device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..layers.device import on_cpu
from ..optim.optimizers import Optimizer
from ..parallel.buckets import AverageOverCards
from .ema import EMA
from .loss_scale import LossScale


# What is done to every gradient or statistic goes through HyperMap: a Python loop in a graph nests a call for
# each, and the compiler's time and memory then grow faster than the network, until its depth is exceeded.
def _settle(overflow, statistic, average, before):
    return ops.assign(statistic, ops.where(overflow, before, average))


def _times(factor, x):
    return x * factor


def _clear(total):
    return ops.assign(total, ops.zeros_like(total))


def _square_sum(gradient):
    square = ops.square(gradient)
    if gradient.ndim > 1:  # on a CPU 9 times faster than one sum over a 4-d weight
        square = square.reshape(gradient.shape[0], -1).sum(axis=1)
    return square.sum()


def _frozen_cells(network, parameters, trained):
    """The cells whose parameters an optimizer has, but trains none of them any more."""
    live = {p.name for p in trained}
    still = {p.name for p in parameters} - live
    if not still:
        return []
    owned = [(cell, {p.name for p in cell.get_parameters()}) for _, cell in network.cells_and_names()]
    return [cell for cell, own in owned if own & still and not own & live]


class TrainStep(nn.Cell):
    """Forward, backward, accumulate, all-reduce, overflow check, clip, update, EMA.

    `step(images, targets)` takes one batch of this card, with mixup of pictures also `partners` and `weights`
    (layers/pixels.py), and returns float32 scalars (loss, loss scale, overflow, gradient norm, *parts):

    - loss: mean over the batches of all cards, not scaled.
    - overflow: 1 where an update was skipped: some card had a gradient that is not finite in one of the
      update's batches.
    - gradient norm: global L2 norm of the averaged gradients before clipping; of the gradients so far where
      the update comes with a later batch.
    - parts: of a loss that names some, each as a mean like the loss; `parts` has the names.

    The gradients of `accumulate_steps` batches are averaged into one update; clipping comes after the
    reduction, on what the optimizer would see. A skipped update still counts for the schedule, so that the
    rate stays tied to the data seen, and for Lookahead's share of the run, but not for EMA or for the
    optimizer's own bias correction.

    Each batch has one overflow flag, which all cards agree on. It is asked for once, as asking clears it on
    an Ascend 910 and in saturation mode. The update and the running statistics use the same flag.

    Running statistics are averaged over the cards after every batch, so that all cards evaluate the network
    that one of them saves. A batch with an overflow leaves them as they were: the forward pass may have made
    them NaN while the loss is finite, as ReLU turns a NaN into 0.

    Parameters that the optimizer leaves out (`freeze`) have no gradient: the backward pass ends at the first
    layer that is still trained. A cell of which no parameter is trained any more is in evaluation mode, so
    that its normalisation has the running statistics and leaves them as they are (Brock et al., FreezeOut).

    An optimizer may ask for more in some updates (`Optimizer.due`): their graph, which is compiled beside the
    other, differentiates by its `factors` as well. These gradients are averaged like the others, and play no
    part in the norm.

    State besides the optimizer's, the loss scale's and EMA's: "train.updates" (int32, update attempts) and
    "train.applied" (int32, those not skipped). The partial sums of an accumulation ("accumulated.*") are each
    card's own and start from 0 after every update, so `state` leaves them out.

    Args:
        inputs: a cell (images, partners, weights) -> what the network takes.
        loss: a cell (what the network puts out, targets) -> float32 scalar; targets may be a tuple. A cell
            with an attribute `parts`, names, returns (scalar, *values) with a float32 scalar for each name.
        optimizer: its `parameters` are what is trained.
        rates: learning rate of each update, shape (updates,); the last one stays for updates beyond.
        loss_scale: see `LossScale`.
        accumulate_steps: batches an update.
        clip_norm: largest global gradient norm; 0 for no clipping.
        ema: average to keep, or None.
        cards: number of cards that train together.
        bucket_bytes: most bytes of the messages that average gradients over cards.
    """

    def __init__(
        self,
        network: nn.Cell,
        inputs: nn.Cell,
        loss: nn.Cell,
        optimizer: Optimizer,
        *,
        rates: np.ndarray,
        loss_scale: LossScale,
        accumulate_steps: int = 1,
        clip_norm: float = 0.0,
        ema: EMA | None = None,
        cards: int = 1,
        bucket_bytes: int = 25 << 20,
    ):
        super().__init__(auto_prefix=False)
        self.network = network
        self.inputs = inputs
        self.loss = loss
        self.parts: tuple[str, ...] = tuple(getattr(loss, "parts", ()))
        self.optimizer = optimizer
        self.rates = ms.Tensor(np.asarray(rates, np.float32))
        self.loss_scale = loss_scale
        self.accumulate_steps = accumulate_steps
        self.clip_norm = clip_norm
        self.ema = ema
        self.cards = cards
        self.on_cpu = on_cpu()
        self.statistics = ms.ParameterTuple(
            [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
        )
        self.bucket_bytes = bucket_bytes
        # The loss and its parts, the overflow flag and all running statistics fit into one message.
        small = [(), *(() for _ in self.parts), (), *(p.shape for p in self.statistics)]
        self.average_small = AverageOverCards(small, bucket_bytes=1 << 40, cards=cards)
        self.map = ops.HyperMap()
        self.updates = ms.Parameter(ms.Tensor(0, ms.int32), name="train.updates", requires_grad=False)
        self.applied = ms.Parameter(ms.Tensor(0, ms.int32), name="train.applied", requires_grad=False)
        if accumulate_steps > 1:
            self.batches = ms.Parameter(
                ms.Tensor(0, ms.int32), name="accumulated.batches", requires_grad=False
            )
            self.overflows = ms.Parameter(
                ms.Tensor(0, ms.float32), name="accumulated.overflows", requires_grad=False
            )
            self.sums = {
                p.name: ms.Parameter(
                    np.zeros(p.shape, np.float32), name=f"accumulated.{p.name}", requires_grad=False
                )
                for p in (*optimizer.parameters, *optimizer.factors)
            }
        self.batch: int | None = None  # that comes next; None: to be asked of the device
        self.is_due = False  # factors, in the update of that batch
        self.freeze(0)

    @property
    def state(self) -> list[ms.Parameter]:
        """What a checkpoint between two updates holds, and what all cards then have alike."""
        return [p for p in self.get_parameters() if not p.name.startswith("accumulated.")]

    def set_train(self, mode: bool = True) -> "TrainStep":
        """As of any cell, but for cells that stand still, which stay in evaluation mode."""
        super().set_train(mode)
        for cell in self.frozen:
            cell.set_train(False)
        if still := self.still[0]:
            self.phase += f", {still} still"  # a graph of its own
        return self

    def freeze(self, update: int) -> None:
        """Leaves out what stands still after so many updates; the graph is compiled anew."""
        self.optimizer.leave_out(update)
        self.frozen = _frozen_cells(self.network, self.optimizer.parameters, self.optimizer.trained)
        weights, factors = self.optimizer.trained, self.optimizer.factors
        self.count = len(weights)  # the gradients of factors come behind those of so many weights
        self.by_weights = self._differentiated(weights)
        self.by_factors = self._differentiated([*weights, *factors]) if factors else {}
        self._use(self.by_weights)
        if self.still[0]:
            self.set_train(self.training)

    def _differentiated(self, by: Sequence[ms.Parameter]) -> dict[str, Any]:
        """The attributes of a graph in which the loss is differentiated by these."""
        by = ms.ParameterTuple(by)
        shapes = [p.shape for p in by]
        found = {
            "average_gradients": AverageOverCards(shapes, bucket_bytes=self.bucket_bytes, cards=self.cards),
            "value_and_grad": ms.value_and_grad(self._forward, None, weights=by, has_aux=bool(self.parts)),
        }
        if self.accumulate_steps > 1:
            found["accumulated"] = ms.ParameterTuple([self.sums[p.name] for p in by])
        return found

    def _use(self, attributes: Mapping[str, Any]) -> None:
        """Those of the graph that is compiled or run next."""
        for name, value in attributes.items():
            setattr(self, name, value)

    @contextmanager
    def with_factors(self) -> Iterator[None]:
        """Within it the step is that of an update for which the optimizer has factors due."""
        phase = self.phase
        self.phase += ", factors"
        self.optimizer.capture(True)
        self._use(self.by_factors)
        try:
            yield
        finally:
            self.phase = phase
            self.optimizer.capture(False)
            self._use(self.by_weights)

    def __call__(self, *batch):
        if not self.optimizer.factors:
            return super().__call__(*batch)
        if self.batch is None:
            self.batch = int(self.updates.asnumpy()) * self.accumulate_steps
        update, place = divmod(self.batch, self.accumulate_steps)
        self.batch += 1
        if place == 0:
            self.is_due = self.optimizer.due(update)
        with self.with_factors() if self.is_due else nullcontext():
            return super().__call__(*batch)

    @property
    def still(self) -> tuple[int, int]:
        """How many of the optimizer's parameters stand still, and how many it has."""
        return len(self.optimizer.parameters) - len(self.optimizer.numbers), len(self.optimizer.parameters)

    def stretches(self, updates: int) -> list[tuple[int, int]]:
        """The updates of a run, [start, stop), between which something comes to stand still."""
        cuts = [0, *(end for end in self.optimizer.ends if end < updates), updates]
        return list(pairwise(cuts))

    def start_at(self, updates: int) -> None:
        """Continues as after that many update attempts."""
        ops.assign(self.updates, ms.Tensor(updates, ms.int32))
        self.batch = None

    def rate_of(self, update: int) -> float:
        """The learning rate of an update; they are counted from 1."""
        return float(self.rates[min(update, len(self.rates)) - 1])

    def _forward(self, images, targets):
        loss, parts = self.loss(self.network(images), targets), ()
        if self.parts:
            loss, parts = loss[0], loss[1:]
        if self.loss_scale.active:
            loss = loss * self.loss_scale.value
        return (loss, *parts) if self.parts else loss

    def construct(self, images, targets, partners=None, weights=None):
        images = self.inputs(images, partners, weights)
        scale = self.loss_scale.value * 1.0
        statistics = self._scaled(self.statistics, 1.0)
        loss, gradients = self.value_and_grad(images, targets)
        parts = ()
        if self.parts:
            loss, parts = loss[0], loss[1:]
        if self.loss_scale.active:
            loss = loss / scale
        gradients = self._share(gradients, scale)
        loss, parts, overflow = self._agree(loss, parts, self._all_finite(gradients), statistics)
        if self.accumulate_steps > 1:
            overflow, norm = self._accumulate(gradients, overflow)
        else:
            norm = self._update(gradients, overflow)
        return (loss, scale, overflow.astype(ms.float32), norm, *parts)

    def _agree(self, loss, parts, finite, before):
        """The means of all cards' loss and parts, and whether one has an overflow; settles the statistics."""
        averages = self.average_small((loss, *parts, 1.0 - finite.astype(ms.float32), *self.statistics))
        flag = 1 + len(self.parts)
        overflow = averages[flag] > 0
        self.map(ops.partial(_settle, overflow), self.statistics, averages[flag + 1 :], before)
        return averages[0], averages[1:flag], overflow

    def _share(self, gradients, scale):
        """A batch's share of the gradients of the update's loss, from those of its scaled loss."""
        batches, count = self.accumulate_steps, self.count
        if not self.loss_scale.active:
            return gradients if batches == 1 else self._scaled(gradients, 1.0 / batches)
        share = self._scaled(gradients[:count], 1.0 / (scale * batches))
        if len(gradients) > count:
            half = (len(gradients) + count) // 2
            share = share + self._scaled(gradients[count:half], 1.0 / batches)
            outputs = self._scaled(gradients[half:], 1.0 / scale)  # in two turns: a square may be too large
            share = share + self._scaled(outputs, 1.0 / (scale * batches))
        return share

    def _scaled(self, gradients, factor):
        return self.map(ops.partial(_times, factor), gradients)

    def _norm(self, gradients):
        return ops.sqrt(ops.addn(self.map(_square_sum, gradients)))

    def _all_finite(self, gradients):
        """On a CPU by the norm, which is needed anyway; elsewhere by the device's own overflow flag."""
        if self.on_cpu:
            return ops.isfinite(self._norm(gradients))
        return ms.amp.all_finite(gradients)

    def _accumulate(self, gradients, overflow):
        self.map(ops.assign_add, self.accumulated, gradients)
        ops.assign_add(self.overflows, overflow.astype(ms.float32))
        ops.assign_add(self.batches, 1)
        if self.batches == self.accumulate_steps:
            overflow = self.overflows > 0
            norm = self._update(self._scaled(self.accumulated, 1.0), overflow)
            self.map(_clear, (self.batches, self.overflows, *self.accumulated))
        else:
            overflow = ops.zeros((), ms.bool_)
            norm = self._norm(self.accumulated[: self.count])
        return overflow, norm

    def _update(self, gradients, overflow):
        gradients = self.average_gradients(gradients)
        norm = self._norm(gradients[: self.count])
        if not overflow:
            self._apply(gradients, norm)
        if self.loss_scale.dynamic:
            self.loss_scale(overflow)
        ops.assign_add(self.updates, 1)
        return norm

    def _apply(self, gradients, norm):
        if self.clip_norm > 0:
            factor = self.clip_norm / ops.maximum(norm, self.clip_norm)
            gradients = self._scaled(gradients[: self.count], factor) + gradients[self.count :]
        rate = self.rates[ops.minimum(self.updates, len(self.rates) - 1)]
        self.optimizer(gradients, rate, self.updates)
        ops.assign_add(self.applied, 1)
        if self.ema is not None:
            share = (self.updates + 1).astype(ms.float32) / len(self.rates)
            self.ema(self.applied.astype(ms.float32), share)
