# SPDX-License-Identifier: Apache-2.0
"""Folding: for inference, what stands behind a convolution becomes part of its weights."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn

from .binary import BinaryConv2d
from .norm import BatchNorm
from .pooling import MaxPool2d
from .weight_standardization import StdConv2d


def fold_layers(network: nn.Cell) -> None:
    """Folds every layer of a network in place; no training can follow. A second call changes nothing.

    Standardised weights take the place of the raw ones. A cell registers its cells in the order in which it
    calls them: so a `BatchNorm` that is the next behind a convolution is folded into it, and with a maximum
    pooling between, where no scale is negative and turns largest values into smallest. Behind a binary
    convolution it stays, and takes the scale of the weights, which become -1 and +1.
    """
    for _, cell in list(network.cells_and_names()):
        if isinstance(cell, StdConv2d):
            cell.fold()
        cells = list(cell.name_cells().items())
        for place, (name, norm) in enumerate(cells):
            if not isinstance(norm, BatchNorm):
                continue
            conv = _computed_before(norm, [before for _, before in cells[:place]])
            if isinstance(conv, BinaryConv2d):
                fold_scale(conv, norm)
            elif isinstance(conv, nn.Conv2d):
                fold_norm(conv, norm)
                _replace(cell, name, nn.Identity())


def _computed_before(norm: BatchNorm, cells: Sequence[nn.Cell]) -> nn.Cell | None:
    """The last of the cells before a normalisation, but for a maximum that it commutes with."""
    commutes = cells and isinstance(cells[-1], MaxPool2d) and (norm.gamma.asnumpy() >= 0).all()
    cells = cells[:-1] if commutes else cells
    return cells[-1] if cells else None


def fold_norm(conv: nn.Conv2d, norm: BatchNorm) -> None:
    """Gives a convolution the weight and bias by which it answers as with `norm` behind it in evaluation.

    With s = gamma / sqrt(variance + eps): (w x + b - mean) s + beta = (s w) x + (b - mean) s + beta.
    """
    gamma, beta, mean, variance = _numbers(norm)
    scale = gamma / np.sqrt(variance + norm.eps)
    before = conv.bias.asnumpy().astype(np.float64) if conv.has_bias else 0
    bias = ((before - mean) * scale + beta).astype(np.float32)
    _store(conv.weight, conv.weight.asnumpy() * scale.reshape(-1, 1, 1, 1))
    conv.bias = ms.Parameter(ms.Tensor(bias), name=conv.weight.name.removesuffix("weight") + "bias")
    conv.has_bias = True


def fold_scale(conv: BinaryConv2d, norm: BatchNorm) -> None:
    """Stores +-1 as the convolution's weight and moves its scale into the batch normalisation behind it.

    gamma (alpha c - mean) / d + beta = gamma alpha (c - mean / alpha) / d + beta, with c the convolution by
    +-1, exact whole numbers, and d = sqrt(variance + eps). A filter of zeros (alpha 0), which adds
    beta - gamma mean / d, stays so.
    """
    gamma, beta, mean, variance = _numbers(norm)
    weight = conv.weight.asnumpy().astype(np.float64)
    alpha = np.abs(weight).reshape(len(weight), -1).mean(axis=1)
    shift = gamma * mean / np.sqrt(variance + norm.eps)
    _store(conv.weight, np.where(weight >= 0, 1, -1))
    _store(norm.gamma, gamma * alpha)
    _store(norm.beta, beta - np.where(alpha > 0, 0, shift))
    _store(norm.moving_mean, np.divide(mean, alpha, out=np.zeros_like(mean), where=alpha > 0))
    conv.quantiser = None


def fold_factor(classifier: nn.Dense, factor: float) -> None:
    """Gives a dense layer the weights by which it answers `factor` times as much."""
    for parameter in classifier.get_parameters():
        _store(parameter, parameter.asnumpy().astype(np.float64) * factor)


def _numbers(norm: BatchNorm) -> list[np.ndarray]:
    """Scale, offset, mean and variance, (C,) float64: so that only the result is rounded."""
    parameters = norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance
    return [parameter.asnumpy().astype(np.float64) for parameter in parameters]


def _store(parameter: ms.Parameter, values: np.ndarray) -> None:
    parameter.set_data(ms.Tensor(values.astype(np.float32)))


def _replace(parent: nn.Cell, name: str, cell: nn.Cell) -> None:
    if isinstance(parent, nn.SequentialCell):  # it has a list of them too
        parent[list(parent.name_cells()).index(name)] = cell
    else:
        setattr(parent, name, cell)
