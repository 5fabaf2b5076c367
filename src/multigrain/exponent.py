"""The exponent of generalised-mean pooling that fits a test resolution: many tried on one feature map.

For larger images than in training a larger p fits, the p* of MultiGrain (Berman et al., arXiv 1902.05509).
"""

import contextlib
import math
from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError
from ..data.batches import ShardBatches
from ..evaluation.classification import score
from ..layers.gem import GeM
from ..model_utils.device_adapter import without_graph
from .network import MultiGrain


class Sweep(nn.Cell):
    """Logits at each exponent, (N, 3, H, W) -> (P, N, num_classes)."""

    def __init__(self, network: MultiGrain, exponents: Sequence[float]):
        super().__init__()
        self.network = network
        self.pools = nn.CellList([GeM(p) for p in exponents])

    def construct(self, x):
        features = self.network.features(x)
        logits = []
        for pool in self.pools:
            logits.append(self.network.classify(pool(features)))
        return ops.stack(logits)


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
    batches: ShardBatches,
    exponents: Sequence[float],
    *,
    reduce: Callable[[np.ndarray], np.ndarray],
) -> list[dict[str, float]]:
    """Top-1 in percent and cross-entropy in nats of the network, in evaluation mode, at each exponent.

    Args:
        inputs: the recipe's cell from a batch's images to the network's input.
        batches: those of many shapes run without a graph.
        reduce: adds a float64 vector over ranks.

    Returns:
        {p, top1, loss} of each exponent, in their order.

    Raises:
        UserError: there are no images.
    """
    sweep = Sweep(network, exponents).set_train(False)
    mode = contextlib.nullcontext if batches.one_shape else without_graph
    sums, count = np.zeros((len(exponents), 2)), 0
    for images, labels, valid in batches:
        with mode():
            logits = sweep(inputs(ms.Tensor(images))).asnumpy()
        for row, answers in zip(sums, logits, strict=True):
            scores = score(answers[:valid], labels[:valid])
            row += (scores.place < 1).sum(), scores.loss.sum()
        count += valid
    *sums, count = reduce(np.append(sums, count))
    if not count:
        raise UserError(
            "data_path: too few images, some are to choose p and others to evaluate it; add images"
        )
    means = (np.reshape(sums, (-1, 2)) / count).tolist()
    return [{"p": p, "top1": 100 * top1, "loss": loss} for p, (top1, loss) in zip(exponents, means)]


def best_of(rows: Sequence[dict[str, float]], *, by_loss: bool = False) -> dict[str, float]:
    """The row of the highest top-1, of equal ones that of the lowest loss; or the latter of all."""

    def order(row: dict[str, float]) -> tuple[float, float]:
        return 0 if by_loss else -row["top1"], math.inf if math.isnan(row["loss"]) else row["loss"]

    return min(rows, key=order)
