# SPDX-License-Identifier: Apache-2.0
"""Weight initialisers in numpy: the same numbers on every device, and from the parameter's name alone."""

import zlib
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn

Initialiser = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def torch_default(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-b, b) with b = 1 / sqrt(fan_in), shape (out, in, *kernel).

    PyTorch's default for convolutions and dense layers, which the DAWNBench ResNet9 is trained from: He's
    uniform initialisation (arXiv 1502.01852) with the slope a = sqrt(5).
    """
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape)


def he_normal_fan_out(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 2 / fan_out), shape (out, in, *kernel): torchvision's for the convolutions of its ResNets.

    He et al., arXiv 1502.01852, by the outputs that an input has: out * kernel.
    """
    return rng.normal(0, np.sqrt(2 * shape[1] / np.prod(shape)), shape)


def small_positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(0, 0.001), where the official Bi-Real code starts its binary weights from: all signs are +1."""
    return rng.uniform(0, 0.001, shape)


def dirac(weight: Initialiser) -> Initialiser:
    """`weight`, but for the first filters, which copy the input: filter i is 1 in the middle of channel i.

    There are min(out, in) of them; the kernel has odd sides. Behind the first layer a signal then passes a
    new network unchanged (Zagoruyko and Komodakis, DiracNets, arXiv 1706.00388; as airbench uses it, arXiv
    2404.00498).
    """

    def partial_identity(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = weight(rng, shape)
        copies = np.arange(min(shape[:2]))
        values[: len(copies)] = 0
        values[copies, copies, shape[2] // 2, shape[3] // 2] = 1
        return values

    return partial_identity


def initialise(network: nn.Cell, *, seed: int, weight: Initialiser) -> None:
    """Fills every weight of two or more dimensions in `network` in place; the biases beside them become 0.

    Each weight has a generator of its own, seeded with (seed, its name), so that adding a layer leaves the
    others as they were and every rank starts from the same network. A cell with an attribute `initialiser`
    has its weight from that instead.
    """
    for prefix, cell in network.cells_and_names():
        held = getattr(cell, "weight", None)
        if not isinstance(held, ms.Parameter) or held.ndim < 2:
            continue
        rng = np.random.default_rng([seed, zlib.crc32(f"{prefix}.weight".encode())])
        values = getattr(cell, "initialiser", weight)(rng, held.shape)
        held.set_data(ms.Tensor(values.astype(np.float32)))
        bias = getattr(cell, "bias", None)
        if isinstance(bias, ms.Parameter):
            bias.set_data(ms.Tensor(np.zeros(bias.shape, np.float32)))
