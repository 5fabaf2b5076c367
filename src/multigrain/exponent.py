# SPDX-License-Identifier: Apache-2.0
"""The exponent of generalised-mean pooling that fits a test resolution: many tried on one feature map.

For larger images than in training a larger p fits, the p* of MultiGrain (Berman et al., arXiv 1902.05509).
"""

import math
from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..data.batches import EvalBatches
from ..evaluation.evaluate import answers, as_function
from ..evaluation.metrics import Totals
from ..layers.gem import GeM
from .network import MultiGrain

COARSE = (*(k / 2 for k in range(2, 17)), math.inf)
FINE = (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4)  # about the best of them


class Sweep(nn.Cell):
    """Logits at each exponent, (N, 3, H, W) -> (N, P, num_classes)."""

    def __init__(self, network: MultiGrain, exponents: Sequence[float]):
        super().__init__()
        self.network = network
        self.pools = nn.CellList([GeM(p) for p in exponents])

    def construct(self, x):
        features = self.network.features(x)
        logits = []
        for pool in self.pools:
            logits.append(self.network.classify(pool(features)))
        return ops.stack(logits, 1)


def training_exponent(network: MultiGrain) -> float:
    """The p that the network was trained with, or that it has learnt."""
    p = network.pool.p
    return float(p.asnumpy()) if isinstance(p, ms.Parameter) else float(p)


def split_in_half(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of the images, which differ by one of each class at most.

    Args:
        labels: (N,) integers.
        seed: says which images are in which.

    Returns:
        sorted indices; of an odd number the first half has one more.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    return np.sort(order[::2]), np.sort(order[1::2])


def figures(
    network: MultiGrain,
    inputs: nn.Cell,
    batches: EvalBatches,
    exponents: Sequence[float],
    *,
    reduce: Callable[[np.ndarray], np.ndarray],
) -> list[dict[str, float]]:
    """Top-1 in percent and cross-entropy in nats of the network, in evaluation mode, at each exponent.

    Args:
        inputs: the recipe's cell from a batch's images to the network's input.
        batches: those of many shapes run without a graph.
        reduce: as `evaluate` takes it.

    Returns:
        {p, top1, loss} of each exponent, in their order.

    Raises:
        UserError: there are no images.
    """
    predict = as_function(Sweep(network, exponents).set_train(False), inputs, one_shape=batches.one_shape)
    totals = [Totals(len(batches.class_names)) for _ in exponents]
    for batch in answers(predict, batches):
        for total, logits in zip(totals, batch.outputs.swapaxes(0, 1), strict=True):
            total.update(logits, batch.labels)
    vectors = zip(*(total.vectors() for total in totals), strict=True)
    sums, counts = (np.split(reduce(np.concatenate(parts)), len(totals)) for parts in vectors)
    rows = []
    for p, *own in zip(exponents, sums, counts, strict=True):
        figures = Totals.from_vectors(len(batches.class_names), *own).result()
        rows.append({"p": p, "top1": figures["top1"], "loss": figures["loss"]})
    return rows


def best_of(rows: Sequence[dict[str, float]], *, by_loss: bool = False) -> dict[str, float]:
    """The row of the highest top-1, of equal ones that of the lowest loss; or the latter of all."""

    def order(row: dict[str, float]) -> tuple[float, float]:
        return 0 if by_loss else -row["top1"], math.inf if math.isnan(row["loss"]) else row["loss"]

    return min(rows, key=order)


Row = dict[str, float]
Measure = Callable[[Sequence[float]], list[Row]]


def choose(
    measure: Measure, exponents: Sequence[float], *, refine: bool = False, by_loss: bool = False
) -> tuple[Row, list[Row]]:
    """The best of the exponents, and the rows of all that were tried, by ascending p.

    Args:
        measure: exponents -> their rows, as `figures` gives them.
        refine: then try tenths about the best too, unless that is the maximum.
        by_loss: see `best_of`.
    """
    table = measure(exponents)
    best = best_of(table, by_loss=by_loss)["p"]
    if refine and math.isfinite(best):
        table += measure([round(best + step, 1) for step in FINE])
        table.sort(key=lambda row: row["p"])
    return best_of(table, by_loss=by_loss), table
