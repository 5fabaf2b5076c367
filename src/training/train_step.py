"""One training step as one cell: the same graph for every model and every device."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..optim.optimizers import Optimizer
from ..parallel.buckets import AverageOverCards
from .ema import EMA
from .loss_scale import LossScale


# What is done to every gradient or statistic goes through HyperMap: a Python loop in a graph nests a call for
# each, and the compiler's time and memory then grow faster than the network, until its depth is exceeded.
def _chosen(finite, statistic, old):
    return ops.where(finite, statistic, old)


def _times(factor, x):
    return x * factor


def _clear(total):
    return ops.assign(total, ops.zeros_like(total))


def _square_sum(gradient):
    square = ops.square(gradient)
    if gradient.ndim > 1:  # on a CPU 9 times faster than one sum over a 4-d weight
        square = square.reshape(gradient.shape[0], -1).sum(axis=1)
    return square.sum()


class TrainStep(nn.Cell):
    """Forward, backward, accumulate, all-reduce, overflow check, clip, update, EMA.

    `step(images, targets)` takes one batch of this card, with mixup of pictures also `partners` and `weights`
    (layers/pixels.py), and returns float32 scalars (loss, loss scale, overflow, gradient norm):

    - loss: mean over the batches of all cards, not scaled.
    - overflow: 1 where some card found a gradient that is not finite; all cards agree and skip the update.
    - gradient norm: global L2 norm of the averaged gradients before clipping; of the gradients so far where
      the update comes with a later batch.

    The gradients of `accumulate_steps` batches are averaged into one update; clipping comes after the
    reduction, on what the optimizer would see. A skipped update still counts for the schedule, so that the
    rate stays tied to the data seen, and not for EMA or for the optimizer's own bias correction.

    Running statistics are averaged over the cards after every batch, so that all cards evaluate the network
    that one of them saves. A batch with an overflow leaves its card's as they were: the forward pass may have
    made them NaN, and all later evaluations with them, while the loss is finite, as ReLU turns a NaN into 0.

    State besides the optimizer's, the loss scale's and EMA's: "train.updates" (int32, update attempts),
    "train.applied" (int32, those not skipped), and with accumulation "train.batches" and "accumulated.*".

    Args:
        inputs: a cell (images, partners, weights) -> what the network takes.
        loss: a cell (what the network puts out, targets) -> float32 scalar; targets may be a tuple.
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
        self.optimizer = optimizer
        self.rates = ms.Tensor(np.asarray(rates, np.float32))
        self.loss_scale = loss_scale
        self.accumulate_steps = accumulate_steps
        self.clip_norm = clip_norm
        self.ema = ema
        self.cards = cards
        self.on_cpu = ms.get_context("device_target") == "CPU"
        self.statistics = ms.ParameterTuple(
            [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
        )
        self.average_gradients = AverageOverCards(
            [p.shape for p in optimizer.parameters], bucket_bytes=bucket_bytes, cards=cards
        )
        # The loss and all running statistics fit into one message.
        small = [(), *(p.shape for p in self.statistics)]
        self.average_statistics = AverageOverCards(small, bucket_bytes=1 << 40, cards=cards)
        self.average_flag = AverageOverCards([()], bucket_bytes=4, cards=cards)
        self.map = ops.HyperMap()
        self.value_and_grad = ms.value_and_grad(self._forward, None, weights=optimizer.parameters)
        self.updates = ms.Parameter(ms.Tensor(0, ms.int32), name="train.updates", requires_grad=False)
        self.applied = ms.Parameter(ms.Tensor(0, ms.int32), name="train.applied", requires_grad=False)
        if accumulate_steps > 1:
            self.batches = ms.Parameter(ms.Tensor(0, ms.int32), name="train.batches", requires_grad=False)
            self.accumulated = ms.ParameterTuple(
                [
                    ms.Parameter(
                        np.zeros(p.shape, np.float32), name=f"accumulated.{p.name}", requires_grad=False
                    )
                    for p in optimizer.parameters
                ]
            )

    def _forward(self, images, targets):
        loss = self.loss(self.network(images), targets)
        return loss * self.loss_scale.value if self.loss_scale.active else loss

    def construct(self, images, targets, partners=None, weights=None):
        images = self.inputs(images, partners, weights)
        scale = self.loss_scale.value * 1.0
        statistics = self._scaled(self.statistics, 1.0)
        loss, gradients = self.value_and_grad(images, targets)
        loss = self._settle_statistics(loss, statistics, gradients)
        if self.loss_scale.active:
            loss = loss / scale
            gradients = self._scaled(gradients, 1.0 / (scale * self.accumulate_steps))
        elif self.accumulate_steps > 1:
            gradients = self._scaled(gradients, 1.0 / self.accumulate_steps)
        if self.accumulate_steps > 1:
            overflow, norm = self._accumulate(gradients)
        else:
            overflow, norm = self._update(gradients)
        return loss, scale, overflow.astype(ms.float32), norm

    def _settle_statistics(self, loss, before, gradients):
        """Averages the running statistics over the cards, and the loss, which is returned."""
        finite = self._all_finite(gradients)
        own = self.map(ops.partial(_chosen, finite), self.statistics, before)
        averages = self.average_statistics((loss, *own))
        self.map(ops.assign, self.statistics, averages[1:])
        return averages[0]

    def start_at(self, step: int) -> None:
        """Continues as after `step` batches, a multiple of `accumulate_steps`."""
        ops.assign(self.updates, ms.Tensor(step // self.accumulate_steps, ms.int32))
        if self.accumulate_steps > 1:
            ops.assign(self.batches, ms.Tensor(step, ms.int32))
            for total in self.accumulated:
                _clear(total)

    def _scaled(self, gradients, factor):
        return self.map(ops.partial(_times, factor), gradients)

    def _norm(self, gradients):
        return ops.sqrt(ops.addn(self.map(_square_sum, gradients)))

    def _all_finite(self, gradients):
        """On a CPU by the norm, which is needed anyway; elsewhere by the device's own overflow flag."""
        if self.on_cpu:
            return ops.isfinite(self._norm(gradients))
        return ms.amp.all_finite(gradients)

    def _accumulate(self, gradients):
        self.map(ops.assign_add, self.accumulated, gradients)
        ops.assign_add(self.batches, 1)
        if self.batches % self.accumulate_steps == 0:
            overflow, norm = self._update(self._scaled(self.accumulated, 1.0))
            self.map(_clear, self.accumulated)
        else:
            overflow, norm = ops.zeros((), ms.bool_), self._norm(self.accumulated)
        return overflow, norm

    def _update(self, gradients):
        finite = self._all_finite(gradients)
        # The flag is reduced on its own: a device that saturates instead of overflowing to infinity knows of
        # its overflow only locally.
        overflow = self.average_flag((1.0 - finite.astype(ms.float32),))[0] > 0
        gradients = self.average_gradients(gradients)
        norm = self._norm(gradients)
        if not overflow:
            self._apply(gradients, norm)
        if self.loss_scale.dynamic:
            self.loss_scale(overflow)
        ops.assign_add(self.updates, 1)
        return overflow, norm

    def _apply(self, gradients, norm):
        if self.clip_norm > 0:
            gradients = self._scaled(gradients, self.clip_norm / ops.maximum(norm, self.clip_norm))
        self.optimizer(gradients, self.rates[ops.minimum(self.updates, len(self.rates) - 1)])
        ops.assign_add(self.applied, 1)
        if self.ema is not None:
            self.ema(self.applied.astype(ms.float32))
