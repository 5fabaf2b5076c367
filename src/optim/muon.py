# SPDX-License-Identifier: Apache-2.0
"""Muon: momentum, made orthogonal, for weights that are filters; Nesterov's SGD for all others.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as airbench94_muon.py of
KellerJordan/cifar10-airbench has it (MIT; own code); interval of the norm and decay of the filters as
hiverge/cifar10-speedrun.

A weight of D filters of K numbers each is a matrix, D x K. Its update is the momentum with all singular
values near 1: each direction of the matrix moves alike, also one of which the gradient has little. The size
of the gradient plays no part.
"""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ops

from .groups import ParamGroup
from .optimizers import SGD, fraction

_SMALL = 1e-12  # keeps a gradient or weight of 0 finite


class Muon(SGD):
    """Orthogonal updates for weights of 4 dimensions, (D, C, H, W) with K = C H W, but not the classifier's.

    All other parameters are updated as by `SGD`.

    v = mu * v + g;  u = g + mu * v with Nesterov, else v;  X = u / |u|, as a matrix (D, K)
    steps times: X <- a X + (b A + c A^2) X with A = X X^T
    in an update at which it is due: w <- w * sqrt(D) / |w|
    w <- w - rate * X;  w <- w * (1 - rate * decay)

    |.| is the Euclidean norm. The iteration (Newton-Schulz, a quintic) takes each singular value s of X to
    a s + b s^3 + c s^5. Its coefficients have a steep slope at 0, so that few steps lift small ones; they end
    near 1, not at it: three steps of the default take s from 0.1 to 1 to values between 0.68 and 1.13.

    The norm comes at update t (counted from 1) when `norm_every` + floor(norm_growth * t / updates) updates
    have passed since the last one, or since the start.

    State: velocities as in `SGD`, "optim.velocity.*".

    Args:
        groups: see `Optimizer`; their `weight_decay` is that of the other parameters.
        momentum: of the other parameters, in [0, 1).
        nesterov: use Nesterov's form, for all.
        lr_in_velocity: of the other parameters, see `SGD`.
        lr: the peak of the rates that the optimizer is called with, which are those of the others.
        filter_lr: the peak of the filters' rates, which follow the same course.
        filter_momentum: mu, in [0, 1).
        filter_decay: decay of the filters, 0 or more.
        steps: of the iteration.
        coefficients: a, b, c.
        norm_every: updates, 1 or more; 0: the filters' norm is left alone.
        norm_growth: updates.
        updates: of the whole run.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        momentum: float,
        nesterov: bool,
        lr_in_velocity: bool,
        lr: float,
        filter_lr: float,
        filter_momentum: float,
        filter_decay: float,
        steps: int,
        coefficients: Sequence[float],
        norm_every: int,
        norm_growth: float,
        updates: int,
    ) -> None:
        super().__init__(groups, momentum=momentum, nesterov=nesterov, lr_in_velocity=lr_in_velocity)
        self.filters = tuple(
            parameter.ndim == 4 and not group.is_head for group in groups for parameter in group.parameters
        )
        self.lr_multiplier = tuple(
            factor * filter_lr / lr if is_filter else factor
            for factor, is_filter in zip(self.lr_multiplier, self.filters, strict=True)
        )
        self.filter_momentum = fraction("filter_momentum", filter_momentum)
        self.filter_decay = float(filter_decay)
        self.steps = tuple(range(steps))
        self.coefficients = tuple(map(float, coefficients))
        self.normalises = norm_every > 0
        due = norm_due(updates, every=norm_every, growth=norm_growth) if self.normalises else [False]
        self.norm_due_at = ms.Tensor(np.array(due, np.float32))
        self.times_transposed = ops.MatMul(transpose_b=True)

    def _begin(self, update):
        """Whether the filters get their norm in this update."""
        return self.norm_due_at[ops.minimum(update, self.norm_due_at.shape[0] - 1)] > 0

    def _update(self, i, gradient, rate, shared):
        if self.filters[i]:
            self._update_filters(i, gradient, rate, shared)
        else:
            self._descend(i, gradient, rate)

    def _update_filters(self, i, gradient, rate, due):
        weight = self.parameters[i]
        momentum = self.filter_momentum
        velocity = momentum * self.velocity[i] + gradient
        ops.assign(self.velocity[i], velocity)
        direction = gradient + momentum * velocity if self.nesterov else velocity
        direction = self.orthogonal(direction.reshape(direction.shape[0], -1)).reshape(weight.shape)
        value = weight
        if self.normalises:
            factor = weight.shape[0] ** 0.5 / (_norm(weight.reshape(weight.shape[0], -1)) + _SMALL)
            value = weight * ops.where(due, factor, ops.ones_like(factor))
        value = value - rate * direction
        if self.filter_decay != 0.0:
            value = value * (1 - rate * self.filter_decay)
        ops.assign(weight, value)

    def orthogonal(self, matrix):
        """(D, K) -> (D, K), the same singular vectors with singular values near 1.

        A step multiplies X from the left by P = a I + b A + c A^2, and A by P from both sides. So all but the
        first and the last product are of the smaller side alone: half the work for 256 filters of 2,304.
        """
        a, b, c = self.coefficients
        wide = matrix.shape[0] <= matrix.shape[1]
        x = matrix if wide else matrix.T
        x = x / (_norm(x) + _SMALL)
        gram = self.times_transposed(x, x)
        identity = ops.eye(gram.shape[0], gram.shape[0], ms.float32)
        product = identity
        for step in self.steps:
            factor = a * identity + b * gram + c * ops.matmul(gram, gram)
            product = factor if step == 0 else ops.matmul(factor, product)
            if step < len(self.steps) - 1:
                gram = ops.matmul(ops.matmul(factor, gram), factor)
        x = ops.matmul(product, x)
        return x if wide else x.T


def _norm(matrix):
    return ops.sqrt(ops.square(matrix).sum(axis=1).sum())


def norm_due(updates: int, *, every: int, growth: float) -> list[bool]:
    """In which updates of a run the filters get their norm."""
    due, last = [], 0
    for update in range(1, updates + 1):
        due.append(update - last >= every + int(growth * update / updates))
        last = update if due[-1] else last
    return due
