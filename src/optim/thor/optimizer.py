# SPDX-License-Identifier: Apache-2.0
"""THOR: momentum over gradients that the inverse of each layer's curvature has multiplied."""

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ...common.errors import UserError
from ..groups import ParamGroup
from ..optimizers import SGD
from .blocks import multiply
from .inverse import DampedInverse
from .tap import Tap

_NONE = -1


class Thor(SGD):
    """Natural gradient for convolutions and dense layers, `SGD` for all other parameters.

    THOR (Chen et al., AAAI 2021; nn.thor of MindSpore) is K-FAC (Martens and Grosse, arXiv 1503.05671) whose
    factors are inverted in one update of many, from that update's batch alone, by the blocks on their
    diagonals (`blocks`). With the factors A and G of a layer (`tap`), damping d, the gradient V of its weight
    as a matrix (O, I k k), and that of its bias, if it has one, as one more column:

        U = (G + sqrt(d) / p I)^-1 V (A + sqrt(d) p I)^-1.

    U takes the gradient's place in `SGD`, which adds the weight decay to it. p is 1, or where `balanced` the
    root of the mean diagonal element of A over that of G (Martens and Grosse, 6.3). The inverses start as the
    identity, with which the update is that of `SGD`.

    A train step captures the factors in the updates that `due` names, and hands them over behind the
    gradients: the gradients by `factors`, averaged over an update's batches and over the cards like them. All
    are inverted as one batch of blocks, of which each card does an equal share.

    State besides the velocity: "optim.thor.input.*" and "optim.thor.output.*", the inverses by blocks;
    "optim.thor.made" (int32), after how many updates they were made, -1 before; "optim.thor.raised" (int32),
    for how many blocks the damping was raised (`inverse`) in the run so far.

    Args:
        groups: see `Optimizer`.
        network: whose layers the parameters belong to; those layers are tapped.
        momentum: see `SGD`, as `nesterov` and `lr_in_velocity`.
        lr: the peak of the rates that the optimizer is called with.
        layer_lr: the peak of the rates of the tapped layers, which follow the same course; 0: `lr`.
        damping: d at the start of the run.
        damping_decay: what d is multiplied by every 10 epochs, in steps of an update.
        every: updates from one inverse to the next.
        block: most rows of a block.
        balanced: see above.
        updates: of the whole run.
        updates_per_epoch: need not be whole.
        cards: that train together.
        rank: which of them this one is.

    Attributes:
        factors: by what the loss is differentiated for the factors: all layers' A, then all layers' G.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        network: nn.Cell,
        momentum: float,
        nesterov: bool,
        lr_in_velocity: bool,
        lr: float,
        layer_lr: float,
        damping: float,
        damping_decay: float = 1.0,
        every: int,
        block: int,
        balanced: bool = False,
        updates: int = 1,
        updates_per_epoch: float = 1.0,
        cards: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(groups, momentum=momentum, nesterov=nesterov, lr_in_velocity=lr_in_velocity)
        numbers = {parameter.name: i for i, parameter in enumerate(self.parameters)}
        self.taps, self.places = _tapped(network, numbers, block)
        if layer_lr:
            tapped = {number for pair in self.places for number in pair}
            self.lr_multiplier = tuple(
                factor * layer_lr / lr if number in tapped else factor
                for number, factor in enumerate(self.lr_multiplier)
            )
        self.every, self.balanced, self.cards, self.rank = every, balanced, cards, rank
        epochs = (np.arange(updates) + 1) / updates_per_epoch
        self.roots = ms.Tensor(np.sqrt(damping * damping_decay ** (epochs / 10)).astype(np.float32))
        inverses = [tap.input_inverse for tap in self.taps] + [tap.output_inverse for tap in self.taps]
        self.factors = ms.ParameterTuple(inverses)
        self.layers = tuple(range(len(self.taps)))
        # Of each gradient its layer, and whether it is the bias's there; NONE: of no layer.
        found = {number: (k, part) for k, pair in enumerate(self.places) for part, number in enumerate(pair)}
        self.sources = tuple(found.get(number, (_NONE, 0)) for number in self.numbers)
        self.rows = tuple(inverse.shape[0] for inverse in inverses)
        self.sides = tuple(inverse.shape[1] for inverse in inverses)
        self.sizes = tuple(tap.sizes[part] for part in range(2) for tap in self.taps)
        self.side = max(self.sides)
        self.invert = DampedInverse(self.side)
        self.split = ops.auto_generate.SplitWithSize()
        self.gather = ops.AllGather() if cards > 1 else None
        self.sum = ops.AllReduce(ops.ReduceOp.SUM) if cards > 1 else None
        self.made = _counter("made", _NONE)
        self.raised = _counter("raised", 0)
        self.counters = {"damping_raised": self.raised}
        self.last: int | None = None  # `made`, where it is known without asking the device

    def due(self, update: int) -> bool:
        """Whether the factors are to be captured in the update behind so many; to be asked in each.

        An update that an overflow skips makes no inverses, and the next is due again.
        """
        if self.last is None:
            self.last = int(self.made.asnumpy())
        due = self.last == _NONE or not 0 <= update - self.last < self.every
        if due:
            self.last = None
        return due

    def capture(self, on: bool) -> None:
        """Whether the graph that is compiled or run next gives the factors."""
        for tap in self.taps:
            tap.on = on

    def construct(self, gradients, learning_rate, update=0):
        count = len(self.numbers)
        if len(gradients) > count:
            self._make_inverses(gradients[count:], update)
        natural = self.map(ops.partial(self._natural, gradients), self.layers)
        gradients = self.map(ops.partial(self._replaced, natural), self.numbers, gradients[:count])
        super().construct(gradients, learning_rate, update)

    def _natural(self, gradients, layer):
        """The pair of what takes the place of the gradients of a layer's weight and bias."""
        weight, bias = self.places[layer]
        gradient = gradients[weight]
        rows = gradient.reshape(gradient.shape[0], -1)
        if bias != _NONE:
            rows = ops.concat((rows, gradients[bias].reshape(-1, 1)), 1)
        rows = multiply(self.factors[len(self.layers) + layer], rows)
        rows = multiply(self.factors[layer], rows.T).T
        if bias == _NONE:
            return rows.reshape(gradient.shape), rows
        return rows[:, :-1].reshape(gradient.shape), rows[:, -1]

    def _replaced(self, natural, number, gradient):
        layer, part = self.sources[number]
        return gradient if layer == _NONE else natural[layer][part]

    def _make_inverses(self, factors, update):
        """Inverts all factors as one batch of blocks of the same side, padded with zeros."""
        root = self.roots[ops.minimum(update, len(self.roots) - 1)]
        places = tuple(range(len(factors)))
        damping = self.map(ops.partial(self._damping, factors, root), places)
        blocks = ops.concat(self.map(self._padded, factors))
        inverses, raised = self._shared(blocks, ops.concat(damping))
        inverses = self.split(inverses, self.rows, 0)
        self.map(_assign_part, self.factors, inverses)
        ops.assign_add(self.raised, ops.cast(raised, ms.int32))
        ops.assign(self.made, ops.cast(update, ms.int32))

    def _damping(self, factors, root, place):
        """Of each block of a factor, (count,)."""
        ones = ops.ones((self.rows[place],), ms.float32)
        if not self.balanced:
            return root * ones
        other = (place + len(self.layers)) % len(factors)
        mine, others = self._mean_diagonal(factors, place), self._mean_diagonal(factors, other)
        both = ops.logical_and(mine > 0, others > 0)
        return root * ops.where(both, ops.sqrt(mine) / ops.sqrt(others), ops.ones_like(mine)) * ones

    def _mean_diagonal(self, factors, place):
        identity = ops.eye(self.sides[place], self.sides[place], ms.float32)
        return (factors[place] * identity).sum() / self.sizes[place]

    def _padded(self, blocks):
        count, side, _ = blocks.shape
        more = self.side - side
        if more > 0:
            blocks = ops.concat((blocks, ops.zeros((count, side, more), ms.float32)), 2)
            blocks = ops.concat((blocks, ops.zeros((count, more, side + more), ms.float32)), 1)
        return blocks

    def _shared(self, blocks, damping):
        """Their inverses, of which each card makes an equal share; and how many have more damping."""
        count = blocks.shape[0]
        if self.cards == 1:
            return self.invert(blocks, damping)
        share = (count + self.cards - 1) // self.cards
        if share * self.cards > count:
            more = share * self.cards - count
            blocks = ops.concat((blocks, ops.zeros((more, *blocks.shape[1:]), ms.float32)))
            damping = ops.concat((damping, ops.ones((more,), ms.float32)))
        start = self.rank * share
        mine, raised = self.invert(blocks[start : start + share], damping[start : start + share])
        return self.gather(mine)[:count], self.sum(raised)


def _assign_part(inverse, part):
    side = inverse.shape[1]
    return ops.assign(inverse, part[:, :side, :side])


def _counter(name: str, value: int) -> ms.Parameter:
    return ms.Parameter(ms.Tensor(value, ms.int32), name=f"optim.thor.{name}", requires_grad=False)


def _tapped(
    network: nn.Cell, numbers: Mapping[str, int], block: int
) -> tuple[list[Tap], tuple[tuple[int, int], ...]]:
    """Taps on all layers whose weight is among `numbers`; those of its weight and of its bias."""
    taps, places = [], []
    for _, cell in network.cells_and_names():
        if not hasattr(cell, "tap") or cell.weight.name not in numbers:
            continue
        bias = getattr(cell, "bias", None)
        number = _NONE if bias is None else numbers.get(bias.name, _NONE)
        tap = Tap(
            cell.weight.name,
            cell.weight.shape,
            window=getattr(cell, "window", None),
            bias=number != _NONE,
            most=block,
        )
        tap.attach(cell)
        taps.append(tap)
        places.append((numbers[cell.weight.name], number))
    if not taps:
        raise UserError("optimizer thor: the network has no convolution and no dense layer that is trained")
    return taps, tuple(places)
