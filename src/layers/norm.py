# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation, of one card's batch or of all cards' batches, and group normalisation.

This is the only caller of `nn.BatchNorm2d`: MindSpore has announced that its signature, its defaults and the
meaning of its momentum change after 2.9, so every argument is passed by keyword.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError
from .device import on_cpu


def batch_norm2d(
    *,
    channels: int,
    momentum: float = 0.1,
    eps: float = 1e-5,
    scale: str = "trained",
    ghost_batch: int = 0,
) -> nn.Cell:
    """Batch normalisation over (N, H, W), (N, C, H, W) -> the same, scale 1 and offset 0 at the start.

    Args:
        momentum: weight of the *new* batch in the running statistics, as in the papers and in PyTorch
            (MindSpore's own argument is the weight of the old ones).
        scale: "trained", or "fixed" at 1: the offset alone is trained.
        ghost_batch: images whose statistics are taken together in training, see `BatchNorm`; 0: the batch.
    """
    norm = BatchNorm(
        ghost_batch=ghost_batch,
        num_features=channels,
        eps=eps,
        momentum=1 - momentum,
        affine=True,
        gamma_init="ones",
        beta_init="zeros",
        moving_mean_init="zeros",
        moving_var_init="ones",
        use_batch_statistics=None,
    )
    norm.gamma.requires_grad = scale == "trained"
    return norm


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation, (N, C, H, W) -> the same; with `synchronise` over the batches of several cards.

    Parameters and running statistics are those of `nn.BatchNorm2d`, under the same names, so a checkpoint
    fits however the training took its statistics, and evaluation is always the same.

    With `ghost_batch` G (Hoffer et al., arXiv 1705.08741) a training batch is normalised in N / G splits,
    each by its own statistics: a large batch gets the noise of a small one, which regularises. Image i is in
    split i mod (N / G), as in cifar10-fast, so that all splits are one batch normalisation of the view
    (G, C N / G, H, W). The running statistics are those of the splits' mean.

    Raises:
        ValueError: in training, the batch is not a multiple of `ghost_batch`.
    """

    def __init__(self, *, ghost_batch: int = 0, **arguments):
        super().__init__(**arguments)
        self.ghost_batch = ghost_batch
        if ghost_batch:
            self.of_splits = _OfSplits(eps=self.eps)

    def synchronise(self, cards: int) -> None:
        """From now on a training step has the statistics of all `cards`, each with as many images."""
        self.across_cards = _InPlainOperators(cards=cards, eps=self.eps)

    def construct(self, x):
        if not self.training or not (self.ghost_batch or hasattr(self, "across_cards")):
            return super().construct(x)
        if self.ghost_batch:
            y, mean, variance = self._in_splits(x)
        else:
            y, mean, variance = self.across_cards(x, self.gamma, self.beta)
        share = self.momentum  # of the new batch
        ops.assign(self.moving_mean, self.moving_mean + share * (mean - self.moving_mean))
        ops.assign(self.moving_variance, self.moving_variance + share * (variance - self.moving_variance))
        return y

    def _in_splits(self, x):
        if x.shape[0] % self.ghost_batch:
            raise ValueError(f"a batch of {x.shape[0]} images has no whole splits of {self.ghost_batch}")
        splits = x.shape[0] // self.ghost_batch
        view = x.reshape(self.ghost_batch, -1, *x.shape[2:])
        gamma, beta = ops.tile(self.gamma, (splits,)), ops.tile(self.beta, (splits,))
        y, mean, variance = self.of_splits(view, gamma, beta)
        mean = mean.reshape(splits, -1).mean(axis=0)
        variance = variance.reshape(splits, -1).mean(axis=0)
        return y.reshape(x.shape), mean, variance


def synchronise_batch_norm(network: nn.Cell, *, cards: int) -> None:
    """Lets every `BatchNorm` of a network share its statistics over `cards`.

    Raises:
        UserError: there are none, or they have a ghost batch.
    """
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, BatchNorm)]
    if not cells:
        raise UserError("the network has no batch normalisation: leave sync_bn false")
    if any(cell.ghost_batch for cell in cells):
        raise UserError(
            "sync_bn: true given, but with a ghost_batch there is nothing to share; leave it false"
        )
    if cards > 1:
        for cell in cells:
            cell.synchronise(cards)


class _OfSplits(nn.Cell):
    """(x, gamma, beta) -> (y, mean, unbiased variance) of one card.

    The operator says what its statistics were on a CPU alone. Its running ones, which nobody reads, stay as
    they are with momentum 0.
    """

    keep_float32 = True

    def __init__(self, *, eps: float):
        super().__init__(auto_prefix=False)
        self.on_cpu = on_cpu()
        self.norm = ops.BatchNorm(is_training=True, epsilon=eps, momentum=0.0)
        self.plain = _InPlainOperators(eps=eps)

    def construct(self, x, gamma, beta):
        if not self.on_cpu:
            return self.plain(x, gamma, beta)
        zero = ops.zeros_like(beta)
        y, _, _, mean, variance = self.norm(x, gamma, beta, zero, zero + 1)
        count = _count(x)
        return y, mean, variance * (count / (count - 1))


class _InPlainOperators(nn.Cell):
    """(x, gamma, beta) -> (y, mean, unbiased variance) over all cards, in plain operators.

    With n numbers a channel on each card, m and v a card's mean and biased variance, and averages over cards:
    mean = avg(m) and variance = avg(v) + avg((m - mean)^2), which loses no digits as E[x^2] - mean^2 does.
    Backward, with x^ = (x - mean) / std and sums over all cards (Ioffe and Szegedy, arXiv 1502.03167):
    dx = gamma / std (dy - sum(dy) / (cards n) - x^ sum(dy x^) / (cards n)). The gradients of gamma and beta
    are this card's part, as all gradients in the train step. One small collective a pass.
    """

    keep_float32 = True

    def __init__(self, *, eps: float, cards: int = 1):
        super().__init__(auto_prefix=False)
        self.cards = cards
        self.eps = eps
        if cards > 1:
            self.gather = ops.AllGather()
            self.reduce = ops.AllReduce(ops.ReduceOp.SUM)
        self.normalise = ops.BatchNorm(is_training=False, epsilon=eps)

    def construct(self, x, gamma, beta):
        mean = _over_images(x) / _count(x)
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = _over_images(centred * centred) / _count(x)
        if self.cards > 1:
            every = self.gather(ops.stack((mean, variance)).expand_dims(0))  # (cards, 2, C)
            mean = every[:, 0].mean(axis=0)
            variance = every[:, 1].mean(axis=0) + ops.square(every[:, 0] - mean).mean(axis=0)
        count = _count(x) * self.cards
        y = self.normalise(x, gamma, beta, mean, variance)[0]
        return y, mean, variance * (count / (count - 1))

    def bprop(self, x, gamma, beta, out, dout):
        count = _count(x) * self.cards
        biased = out[2] * ((count - 1) / count)
        scale = ops.rsqrt(biased + self.eps)
        standard = (x - out[1].reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1)
        dy = dout[0]
        mine = ops.stack((_over_images(dy), _over_images(dy * standard)))
        both = (self.reduce(mine) if self.cards > 1 else mine) / count
        dx = dy - both[0].reshape(1, -1, 1, 1) - standard * both[1].reshape(1, -1, 1, 1)
        return dx * (gamma * scale).reshape(1, -1, 1, 1), mine[1], mine[0]


def _count(x: ms.Tensor) -> int:
    """Numbers a channel on one card."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def _over_images(x: ms.Tensor) -> ms.Tensor:
    """(N, C, H, W) -> (C,): two sums, as on a CPU one over three axes takes several times as long."""
    return x.reshape(x.shape[0], x.shape[1], -1).sum(axis=2).sum(axis=0)


class GroupNorm(nn.Cell):
    """Group normalisation (Wu and He, arXiv 1803.08494), (N, C, H, W) -> the same, in float32.

    (x - mean) / sqrt(variance + eps) * gamma + beta, where mean and (biased) variance are those of an image's
    group of C / groups channels, and gamma and beta are per channel.

    A CPU computes the same by two batch normalisations: one in training mode over the view
    (1, N * groups, ...), whose "channels" are the groups of all images, and one with the fixed statistics 0
    and 1 for gamma and beta. Forward and backward together are twice as fast as MindSpore's group
    normalisation. Exported files and other devices have the plain operator.

    Args:
        channels: C, a multiple of `groups`.
    """

    keep_float32 = True

    def __init__(self, *, channels: int, groups: int = 32, eps: float = 1e-5):
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.gamma = ms.Parameter(ms.Tensor(np.ones(channels, np.float32)), name="gamma")
        self.beta = ms.Parameter(ms.Tensor(np.zeros(channels, np.float32)), name="beta")
        self.on_cpu = on_cpu()
        if self.on_cpu:
            # With momentum 0 the running statistics, which nobody reads, stay as they are.
            self.standardise = ops.BatchNorm(is_training=True, epsilon=eps, momentum=0.0)
            self.scale = ops.BatchNorm(is_training=False, epsilon=eps)
            self.mean = ms.Tensor(np.zeros(channels, np.float32))
            self.variance = ms.Tensor(np.full(channels, 1 - eps, np.float32))

    def construct(self, x):
        if not self.on_cpu:
            return ops.group_norm(x, self.groups, self.gamma, self.beta, self.eps)
        shape = x.shape
        one = ops.ones((shape[0] * self.groups,), ms.float32)
        zero = ops.zeros((shape[0] * self.groups,), ms.float32)
        view = x.reshape(1, shape[0] * self.groups, -1, shape[3])
        x = self.standardise(view, one, zero, zero, one)[0].reshape(shape)
        return self.scale(x, self.gamma, self.beta, self.mean, self.variance)[0]
