# SPDX-License-Identifier: Apache-2.0
"""Distance-weighted sampling of negatives (Wu et al., arXiv 1706.07567), inside the graph.

Distances of random points on a sphere pile up about sqrt(2), where a negative teaches nothing. Drawing each
with the inverse of its distance's density spreads them over all distances.
"""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ops

from ..data.order import Step

CUTOFF = 0.5  # distances below count as this: the nearest would be drawn nearly always
NONZERO_LOSS_CUTOFF = 1.4  # farther ones give no loss and are not drawn
_FAR_BELOW = -1e30
_STREAM = 200  # of random numbers: see `order.Stream`
_NUMBERS = 4  # that rows choose from, in parts of what a row takes


@dataclass(frozen=True)
class PairTargets:
    """What `JointLoss` wants beside the classes: instances, and numbers for the noise of `noise_rows`.

    A number for each pair would be 16.8 million for 64 cards of 64 images: half a second on the host.

    Attributes:
        everywhere: the noise is for the pairs of all ranks' rows, the same on every rank; or for those of
            this rank's rows.
    """

    everywhere: bool

    def __call__(self, step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which image of the set each row is, (B,) int32; numbers (4R,) float32, starts (R,) int32.

        R is the number of rows whose pairs count.
        """
        order = step.order
        rng = step.rng(_STREAM) if self.everywhere else step.rng(_STREAM, order.rank)
        rows = order.total if self.everywhere else order.batch_size
        numbers = rng.gumbel(size=_NUMBERS * rows).astype(np.float32)
        starts = rng.integers((_NUMBERS - 1) * rows + 1, size=rows, dtype=np.int32)
        return step.images.astype(np.int32), numbers, starts


def noise_rows(numbers, starts):
    """Gumbel noise for all pairs of rows: row a has the R numbers that follow numbers[starts[a]].

    Each row is independent noise; two rows may share numbers, but for other columns.

    Args:
        numbers: (M,) float32, standard Gumbel.
        starts: (R,) int32, 0..M - R.

    Returns:
        (R, R) float32.
    """
    rows = starts.shape[0]
    return ops.gather(numbers, starts.reshape(-1, 1) + ops.arange(rows).astype(ms.int32), 0)


def squared_distances(embeddings):
    """|a - b|^2 of all pairs, (B, D) float32 -> (B, B), never negative."""
    products = ops.matmul(embeddings, embeddings.T)
    squares = ops.square(embeddings).sum(axis=1)
    return ops.relu(squares.reshape(-1, 1) + squares.reshape(1, -1) - 2 * products)


def log_weights(squared, same, dimension: int, cutoff: float, nonzero_loss_cutoff: float):
    """The logarithm of how often each negative is drawn for each anchor, up to a constant of the anchor.

    q(d)^-1 with q(d) ~ d^(n - 2) (1 - d^2 / 4)^((n - 3) / 2), the density of distances between points on the
    unit sphere of n dimensions. Where no negative is near enough, all of other instances weigh the same.

    Args:
        squared: (B, B) squared distances of unit vectors.
        same: (B, B) booleans, whether two are of one instance; they are never drawn.
        dimension: n.
        cutoff: distances below count as this.
        nonzero_loss_cutoff: negatives this far or farther are not drawn.

    Returns:
        (weights (B, B), eligible (B, B) booleans); weights that are not eligible mean nothing.
    """
    distance = ops.maximum(ops.sqrt(squared + 1e-12), cutoff)
    rest = ops.maximum(1 - 0.25 * ops.square(distance), 1e-8)
    weights = (2.0 - dimension) * ops.log(distance) - 0.5 * (dimension - 3.0) * ops.log(rest)
    others = ops.logical_not(same)
    near = ops.logical_and(others, distance < nonzero_loss_cutoff)
    none = ops.logical_not(near.any(axis=1, keep_dims=True))
    weights = ops.where(none, ops.zeros_like(weights), weights)
    return weights, ops.logical_or(near, ops.logical_and(none, others))


def choose_negatives(weights, eligible, positives, noise):
    """A negative for each pair of an anchor and a positive.

    An anchor's negatives are drawn without replacement, by the largest sums of weight and Gumbel noise (Kool
    et al., arXiv 1903.06059); where it has more positives than negatives, in turns.

    Args:
        weights: (B, B) float32 logarithms.
        eligible: (B, B) booleans.
        positives: (B, B) booleans, the pairs.
        noise: (B, B) float32, standard Gumbel.

    Returns:
        (B, B) int32: [a, p] is the negative of the pair (a, p); only where `positives` is it of use.
    """
    scores = ops.where(eligible, weights + noise, ops.full_like(weights, _FAR_BELOW))
    order = ops.sort(scores, axis=1, descending=True)[1].astype(ms.int32)
    pairs = positives.astype(ms.float32)
    turn = ops.relu(ops.cumsum(pairs, 1) - 1)
    count = ops.maximum(eligible.astype(ms.float32).sum(axis=1, keepdims=True), 1.0)
    turn = turn - ops.floor((turn + 0.5) / count) * count
    return ops.gather_elements(order, 1, turn.astype(ms.int32))
