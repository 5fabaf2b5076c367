# SPDX-License-Identifier: Apache-2.0
"""Activations by name. A new one is a cell, a row of _CELLS, and its name in names.py."""

import math
from functools import partial

from mindspore import nn, ops

from ..common.errors import UserError
from .binary import ApproxSign, LeakyClip, SteSign
from .device import on_cpu
from .names import ACTIVATIONS

_ROOT = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution, at 0


class CELU(nn.Cell):
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1)), any shape (Barron, arXiv 1704.07483).

    Computed as alpha ELU(x / alpha), the same function, and on a CPU the slope from the value y, as
    min(y, 0) / alpha + 1: there eight times faster than `nn.CELU`, forward and backward.
    """

    def __init__(self, alpha: float):
        super().__init__()
        self.plain, self.rule = _AlphaELU(alpha), _CELU(alpha)
        self.on_cpu = on_cpu()

    def construct(self, x):
        return self.rule(x) if self.on_cpu else self.plain(x)  # a cell around it: see `StraightThrough`


class _AlphaELU(nn.Cell):
    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.elu = ops.Elu(1.0)

    def construct(self, x):
        return self.elu(x * (1 / self.alpha)) * self.alpha


class _CELU(_AlphaELU):
    def bprop(self, x, out, dout):
        return (dout * (ops.minimum(out, 0.0) * (1 / self.alpha) + 1.0),)


class GELU(nn.Cell):
    """x Phi(x) with the normal distribution function Phi, any shape (Hendrycks, Gimpel, arXiv 1606.08415).

    Phi(x) = (1 + erf(x / sqrt 2)) / 2. On a CPU most of its time is the error function's, so there the
    backward pass has Phi from the forward pass: together they take three quarters of the time of `ops.gelu`.
    """

    def __init__(self):
        super().__init__()
        self.rule = _GELU()
        self.on_cpu = on_cpu()

    def construct(self, x):
        return self.rule(x)[0] if self.on_cpu else ops.gelu(x, approximate="none")


class _GELU(nn.Cell):
    """x -> (x Phi(x), Phi(x)); the slope of the first is Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)."""

    def construct(self, x):
        share = ops.erf(x * _ROOT) * 0.5 + 0.5
        return x * share, share

    def bprop(self, x, out, dout):
        return (dout[0] * (out[1] + x * ops.exp(x * x * -0.5) * _DENSITY),)


class SiLU(nn.Cell):
    """x / (1 + exp(-x)), any shape (Hendrycks, Gimpel, arXiv 1606.08415; as Swish arXiv 1710.05941).

    Close to GELU, and on a CPU five times as fast, forward and backward.
    """

    def construct(self, x):
        return ops.silu(x)


_CELLS = {
    "relu": nn.ReLU,
    "celu": CELU,
    "gelu": GELU,
    "silu": SiLU,
    "leaky_clip": LeakyClip,
    "clip": partial(LeakyClip, slope=0.0),
    "approx_sign": ApproxSign,
    "ste_sign": SteSign,
}
# A function that never falls commutes with taking a maximum, so it may run after pooling, on fewer numbers.
NON_DECREASING = frozenset(ACTIVATIONS) - {"gelu", "silu"}


def activation(name: str, *, celu_alpha: float = 1.0) -> nn.Cell:
    """The activation cell of that name, one of `names.ACTIVATIONS`.

    Args:
        celu_alpha: CELU saturates at -celu_alpha; the others ignore it.

    Raises:
        UserError: the name is none of them.
    """
    if name not in _CELLS:
        raise UserError(f"activation is {name!r}; known are {', '.join(_CELLS)}")
    return CELU(celu_alpha) if name == "celu" else _CELLS[name]()


def is_sign(name: str) -> bool:
    """Whether that activation leaves one bit."""
    return name.endswith("_sign")
