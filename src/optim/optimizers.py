# SPDX-License-Identifier: Apache-2.0
"""Optimizers as cells: one call applies one update, inside a graph or outside.

The schedule lives with the caller, who hands in the rate of each step as a tensor; nothing is compiled again
when it changes. Updates are built on operators that are documented for Ascend, GPU and CPU: fused ones where
they were found to compute their formula, elementwise ones elsewhere.
"""

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from .groups import ParamGroup
from .keys import OPTIMIZERS, OptimizerKeys


class Optimizer(nn.Cell):
    """What all optimizers share: the parameters with their group's settings, and named state.

    Calling it with `(gradients, learning_rate, update)` applies one update in place: `gradients` is a tuple
    in the order of `trained`, `learning_rate` a float32 scalar tensor (0-d) that each group's `lr_multiplier`
    scales, `update` an int32 scalar tensor, the number of updates before. The network's parameters keep their
    names and their `requires_grad`.

    A group with `rates` of its own has those, and stands still behind their end: `leave_out` takes it out of
    `trained`, before the graph of a train step is compiled.

    Args:
        groups: at least one parameter in all; none may be in two groups.

    Attributes:
        parameters: what is updated in the whole run, in the order of the groups.
        weight_decay: one number per parameter.
        lr_multiplier: one number per parameter.
        ends: after how many updates some of the parameters stand still, ascending.
        factors: by what the loss is differentiated as well in updates that are `due`. They come behind
            the others. Their first half does not grow with the loss's scale, the second with its square.

    Raises:
        ValueError: there is no parameter, or two have the same name; when called: a gradient too few or
            too many.
    """

    def __init__(self, groups: Sequence[ParamGroup]) -> None:
        super().__init__(auto_prefix=False)
        members = [(parameter, group) for group in groups for parameter in group.parameters]
        names = [parameter.name for parameter, _ in members]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"an optimizer needs parameters with different names, got {names}")
        self.parameters = ms.ParameterTuple([parameter for parameter, _ in members])
        self.factors: Sequence[ms.Parameter] = ()
        self.counters: Mapping[str, ms.Parameter] = {}
        self.map = ops.HyperMap()
        self.numbers = tuple(range(len(members)))
        self.weight_decay = tuple(float(group.weight_decay) for _, group in members)
        self.lr_multiplier = tuple(float(group.lr_multiplier) for _, group in members)
        own = [group for group in groups if group.rates is not None]
        self.own_rates = tuple(ms.Tensor(group.rates, ms.float32) for group in own)
        self.own = tuple(own.index(group) if group in own else -1 for _, group in members)
        self.ends = tuple(sorted({len(group.rates) for group in own}))

    def update_parameters_name(self, prefix: str = "", recurse: bool = True) -> None:
        """Keep all names: a cell that holds this one would put its attribute's name before them.

        Checkpoints find the state, and the network's parameters, by these names.
        """

    def due(self, update: int) -> bool:
        """Whether the update behind so many others needs the gradients by `factors`, too."""
        return False

    def capture(self, on: bool) -> None:
        """Whether the loss of the graph that is compiled or run next depends on `factors`."""

    @property
    def trained(self) -> ms.ParameterTuple:
        """What is still updated, in the order of `parameters`."""
        return ms.ParameterTuple([self.parameters[i] for i in self.numbers])

    def leave_out(self, update: int) -> None:
        """Leaves what stands still at an update out of `trained`; `update` is the number of those before."""
        lengths = [len(rates) for rates in self.own_rates]
        self.numbers = tuple(i for i, own in enumerate(self.own) if own < 0 or update < lengths[own])

    def construct(self, gradients, learning_rate, update=0):
        if len(gradients) != len(self.numbers):
            raise ValueError(f"{len(self.numbers)} gradients are needed, got {len(gradients)}")
        shared = self._begin(update)
        self.map(ops.partial(self._update_one, learning_rate, update, shared), self.numbers, gradients)

    def _update_one(self, learning_rate, update, shared, i, gradient):
        if self.own[i] >= 0:
            learning_rate = self.own_rates[self.own[i]][update]
        multiplier = self.lr_multiplier[i]
        rate = learning_rate if multiplier == 1.0 else learning_rate * multiplier
        self._update(i, gradient, rate, shared)
        return i

    def _begin(self, update):
        """Compute, once an update, what the parameters share; `_update` gets the result."""
        return ()

    def _update(self, i, gradient, rate, shared):
        """Apply the update to parameter number i and its state."""
        raise NotImplementedError("an Optimizer says in _update what it does to one parameter")

    def _with_l2(self, i, gradient):
        """The gradient of the loss plus `weight_decay / 2 * |w|^2`; a decay of 0 costs no operator."""
        decay = self.weight_decay[i]
        return gradient if decay == 0.0 else gradient + decay * self.parameters[i]

    def _new_state(self, slot: str, value: float = 0.0) -> ms.ParameterTuple:
        """A float32 tensor full of `value` for every parameter, named "optim.<slot>.<parameter name>"."""
        return ms.ParameterTuple(
            [
                ms.Parameter(
                    ms.Tensor(np.full(parameter.shape, value, dtype=np.float32)),
                    name=f"optim.{slot}.{parameter.name}",
                    requires_grad=False,
                )
                for parameter in self.parameters
            ]
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    As `torch.optim.SGD` defines it (dampening 0):
    g += wd * w;  v = momentum * v + g;  w -= lr * (g + momentum * v) with Nesterov, else lr * v.

    With `lr_in_velocity`, as Sutskever et al. (ICML 2013) and cifar10-fast have it:
    g += wd * w;  v = momentum * v + lr * g;  w -= lr * g + momentum * v with Nesterov, else v.
    The two are the same while the rate is constant; when it moves, the second one's past gradients keep the
    rate that they came with.

    The velocity v ("optim.velocity.*") starts at 0.

    Args:
        groups: see `Optimizer`.
        momentum: in [0, 1); 0 is plain gradient descent.
        nesterov: use Nesterov's form.
        lr_in_velocity: which of the two definitions.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        momentum: float,
        nesterov: bool,
        lr_in_velocity: bool = False,
    ) -> None:
        super().__init__(groups)
        self.momentum = fraction("momentum", momentum)
        self.nesterov = nesterov
        self.lr_in_velocity = lr_in_velocity
        self.velocity = self._new_state("velocity")
        self.apply_momentum = ops.ApplyMomentum()

    def _update(self, i, gradient, rate, shared):
        self._descend(i, gradient, rate)

    def _descend(self, i, gradient, rate):
        gradient = self._with_l2(i, gradient)
        if self.lr_in_velocity:
            gradient, rate = rate * gradient, 1.0
        if self.nesterov:
            # In two moves, as the operator's own use_nesterov has no effect on a CPU.
            self.apply_momentum(
                self.parameters[i], self.velocity[i], rate * self.momentum, gradient, self.momentum
            )
            ops.assign_sub(self.parameters[i], rate * gradient)
        else:
            self.apply_momentum(self.parameters[i], self.velocity[i], rate, gradient, self.momentum)


class RMSProp(Optimizer):
    """RMSProp with momentum and epsilon inside the root, as TensorFlow and MindSpore define it.

    g += wd * w;  s = decay * s + (1 - decay) * g^2;  m = momentum * m + lr * g / sqrt(s + eps);  w -= m.

    The mean square s ("optim.mean_square.*") starts at 1, as in both frameworks, so that the first updates
    are not blown up; the moment m ("optim.moment.*") starts at 0 and contains the learning rate.

    Args:
        groups: see `Optimizer`.
        decay: of the mean square, in [0, 1).
        momentum: in [0, 1); 0 for none.
        eps: positive, added to the mean square.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, decay: float, momentum: float, eps: float) -> None:
        super().__init__(groups)
        self.decay = fraction("decay", decay)
        self.momentum = fraction("momentum", momentum)
        self.eps = _positive("eps", eps)
        self.mean_square = self._new_state("mean_square", 1.0)
        self.moment = self._new_state("moment")
        self.apply_momentum = ops.ApplyMomentum()

    def _update(self, i, gradient, rate, shared):
        # Not ops.ApplyRMSProp: on a CPU it adds epsilon outside the root, but for a tensor's last elements.
        gradient = self._with_l2(i, gradient)
        square = self.decay * self.mean_square[i] + (1 - self.decay) * (gradient * gradient)
        ops.assign(self.mean_square[i], square)
        change = rate * gradient / ops.sqrt(square + self.eps)
        self.apply_momentum(self.parameters[i], self.moment[i], 1.0, change, self.momentum)


class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015) with bias correction; weight decay is part of the gradient.

    g += wd * w;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr * (m / c1) / (sqrt(v / c2) + eps) with ck = 1 - betak^t, as `torch.optim.Adam` has it.

    State: "optim.moment1.*" and "optim.moment2.*" start at 0, and so does the number of updates t
    ("optim.step", int32).

    Args:
        groups: see `Optimizer`.
        beta1: decay of the mean of the gradient, in [0, 1).
        beta2: decay of the mean of its square, in [0, 1).
        eps: positive, added to the root.
    """

    def __init__(self, groups: Sequence[ParamGroup], *, beta1: float, beta2: float, eps: float) -> None:
        super().__init__(groups)
        beta1, beta2 = fraction("beta1", beta1), fraction("beta2", beta2)
        self.beta1 = ms.Tensor(beta1, ms.float32)
        self.beta2 = ms.Tensor(beta2, ms.float32)
        self.log_beta1 = _log(beta1)
        self.log_beta2 = _log(beta2)
        self.eps = _positive("eps", eps)
        self.zero = ms.Tensor(0.0, ms.float32)
        self.moment1 = self._new_state("moment1")
        self.moment2 = self._new_state("moment2")
        self.step = ms.Parameter(ms.Tensor(0, ms.int32), name="optim.step", requires_grad=False)
        self.apply_adam = ops.Adam()

    def _begin(self, update):
        """Count the update; sqrt(c2) / c1 and eps * sqrt(c2), which turn the operator's formula into ours.

        The operator computes w -= rate * m / (sqrt(v) + eps) when its own powers of beta are 0, as they are
        here: it would subtract them from 1 in float32 and lose digits.
        """
        count = ops.cast(ops.assign_add(self.step, 1), ms.float32)
        correction1 = _one_minus_exp(count * self.log_beta1)
        root2 = ops.sqrt(_one_minus_exp(count * self.log_beta2))
        return root2 / correction1, self.eps * root2

    def _update(self, i, gradient, rate, shared):
        correction, eps = shared
        self.apply_adam(
            self.parameters[i],
            self.moment1[i],
            self.moment2[i],
            self.zero,
            self.zero,
            rate * correction,
            self.beta1,
            self.beta2,
            eps,
            self._decayed(i, gradient, rate),
        )

    def _decayed(self, i, gradient, rate):
        """Apply the weight decay and return the gradient that the operator is to see."""
        return self._with_l2(i, gradient)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), as `torch.optim.AdamW` has it.

    w -= lr * wd * w, then Adam's update with the gradient as it is. State and arguments are those of `Adam`.
    """

    def _decayed(self, i, gradient, rate):
        decay = self.weight_decay[i]
        if decay != 0.0:
            ops.assign_sub(self.parameters[i], (rate * decay) * self.parameters[i])
        return gradient


def create_optimizer(
    keys: OptimizerKeys, groups: Sequence[ParamGroup], *, updates: int = 1, **run: Any
) -> Optimizer:
    """The optimizer that the keys name, over the groups' parameters.

    Args:
        updates: of the whole run.
        run: what else an optimizer may ask for: `updates_per_epoch`, `network`, `cards`, `rank`.

    Raises:
        ValueError: a setting is out of range, see the classes.
    """
    module, name, arguments = OPTIMIZERS[keys.optimizer]
    kind = getattr(importlib.import_module(f".{module}", __package__), name)
    settings = {argument: getattr(keys, key) for argument, key in arguments.items()}
    run = {"updates": updates, **run}
    asked = inspect.signature(kind).parameters
    return kind(groups, **settings, **{name: value for name, value in run.items() if name in asked})


def _one_minus_exp(x):
    """1 - exp(x) for x <= 0 to float32 precision: a series near 0, where a difference would lose digits."""
    series = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5))))
    return ops.where(x > -0.1, series, 1 - ops.exp(x))


def _log(beta: float) -> float:
    """The logarithm, with the smallest float32 in place of 0: 1 minus either's power is 1 in float32."""
    return math.log(max(beta, float(np.finfo(np.float32).tiny)))


def fraction(name: str, value: float) -> float:
    """`value` as float32 holds it, so that 1 - value is exact wherever it is computed."""
    rounded = float(np.float32(value))
    if not 0 <= rounded < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return rounded


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)
