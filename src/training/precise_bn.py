# SPDX-License-Identifier: Apache-2.0
"""Running statistics of batch normalisation, computed anew for weights that stay as they are."""

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common import heartbeat
from ..common.errors import UserError
from ..parallel.collective import sum_over_ranks


def batch_norms(network: nn.Cell) -> list[nn.Cell]:
    """The cells of a network that keep running statistics.

    Raises:
        UserError: there are none.
    """
    cells = [cell for _, cell in network.cells_and_names() if hasattr(cell, "moving_variance")]
    if not cells:
        raise UserError("the network has no batch normalisation: leave bn_reestimation_batches at 0")
    return cells


def reestimate_bn(
    network: nn.Cell, inputs: nn.Cell, batches: Iterable[tuple[np.ndarray, ...]], *, size: int = 1
) -> None:
    """Replaces the running statistics by those of all batches together; the network is left in training mode.

    "Precise BN" (Wu and Johnson, "Rethinking Batch in BatchNorm", arXiv 2105.07576): the mean of the batches'
    means, and by the law of total variance the mean of their variances plus the variance of their means. A
    batch's variance is the one that the framework keeps: of n numbers, their squared deviations / (n - 1). Of
    ghost batches it is the mean of the splits' variances.

    Args:
        inputs: the recipe's cell from a batch's images to the network's input.
        batches: (images, targets, what else `inputs` takes) of this rank, as many on every rank, 1 or more.
        size: number of ranks whose batches count.
    """
    cells = batch_norms(network)
    network.set_train(True)
    sums, count = 0.0, 0
    for images, _, *mixing in batches:
        heartbeat.progress()
        for cell in cells:
            for statistic in (cell.moving_mean, cell.moving_variance):
                ops.assign(statistic, ops.zeros_like(statistic))
        network(inputs(*map(ms.Tensor, (images, *mixing))))
        mean, variance = _of_batch(cells, "moving_mean"), _of_batch(cells, "moving_variance")
        sums, count = sums + np.stack([mean, mean**2, variance]), count + 1
    sums = sum_over_ranks(sums.ravel(), size=size).reshape(3, -1)
    mean, square, variance = sums / (count * size)
    variance = variance + np.maximum(square - mean**2, 0)
    ends = np.cumsum([cell.moving_mean.size for cell in cells])[:-1]
    for cell, *values in zip(cells, np.split(mean, ends), np.split(variance, ends)):
        for statistic, value in zip((cell.moving_mean, cell.moving_variance), values):
            ops.assign(statistic, ms.Tensor(value.astype(np.float32)))


def _of_batch(cells: list[nn.Cell], name: str) -> np.ndarray:
    """The statistic of the one batch since it was 0, float64, all cells in a row.

    A cell's own `momentum` is the weight of the new batch.
    """
    values = [getattr(cell, name).asnumpy().astype(np.float64) / cell.momentum for cell in cells]
    return np.concatenate(values)
