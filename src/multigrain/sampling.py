"""Distance-weighted sampling of negatives (Wu et al., arXiv 1706.07567), inside the graph.

Distances of random points on a sphere pile up about sqrt(2), where a negative teaches nothing. Drawing each
with the inverse of its distance's density spreads them over all distances.
"""

import mindspore as ms
from mindspore import ops

CUTOFF = 0.5  # distances below count as this: the nearest would be drawn nearly always
NONZERO_LOSS_CUTOFF = 1.4  # farther ones give no loss and are not drawn
_FAR_BELOW = -1e30


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
