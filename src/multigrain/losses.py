# SPDX-License-Identifier: Apache-2.0
"""MultiGrain's losses: of pairs of embeddings, and the joint one."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..layers.gem import l2_normalise
from ..layers.losses import CrossEntropy
from .sampling import (
    CUTOFF,
    NONZERO_LOSS_CUTOFF,
    choose_negatives,
    log_weights,
    noise_rows,
    squared_distances,
)


def hinges(positive, negative, beta, margin: float, counted):
    """The margin loss of triplets by their distances, a float32 scalar.

    sum(max(0, d_ap - beta + margin) + max(0, beta - d_an + margin)) over the number of triplets in which one
    of the two is above 0 (Wu et al., arXiv 1706.07567, as MultiGrain counts); 0 without any.

    Args:
        positive: distances of anchor and positive, any shape.
        negative: distances of anchor and negative, the same shape.
        beta: where the boundary lies, a scalar.
        margin: half the width of the band about it.
        counted: the same shape, 1 for a triplet, 0 for what is to be passed over.
    """
    pull = ops.relu(positive - beta + margin) * counted
    push = ops.relu(beta - negative + margin) * counted
    active = ops.logical_or(pull > 0, push > 0).astype(ms.float32).sum()
    return (pull + push).sum() / ops.maximum(active, 1.0)


def _pairs(instances):
    """(same, positives): (B, B) booleans, whether two rows are of one instance, and not the same row."""
    same = instances.reshape(-1, 1) == instances.reshape(1, -1)
    rows = ops.arange(instances.shape[0])
    return same, ops.logical_and(same, rows.reshape(-1, 1) != rows.reshape(1, -1))


class MarginLoss(nn.Cell):
    """The margin loss with distance-weighted negatives: embeddings (B, D) -> float32 scalar.

    Each row is an anchor for every other row of its instance, with a negative for each such pair. Distances
    are those of the normalised embeddings, sqrt(|a - b|^2 + 1e-8).

    Its parameter "loss.beta" is the boundary between near and far.

    Args:
        margin: half the width of the band about the boundary.
        beta: its first value.
        cutoff: of `log_weights`.
        nonzero_loss_cutoff: of `log_weights`.
    """

    keep_float32 = True
    parts = ("margin", "beta")

    def __init__(
        self,
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        cutoff: float = CUTOFF,
        nonzero_loss_cutoff: float = NONZERO_LOSS_CUTOFF,
    ):
        super().__init__(auto_prefix=False)
        self.margin = margin
        self.beta = ms.Parameter(ms.Tensor(np.float32(beta)), name="loss.beta")
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff

    def construct(self, embeddings, instances, noise):
        unit = l2_normalise(embeddings)
        squared = squared_distances(unit)
        same, positives = _pairs(instances)
        weights, eligible = log_weights(
            ops.stop_gradient(squared), same, unit.shape[1], self.cutoff, self.nonzero_loss_cutoff
        )
        chosen = choose_negatives(weights, eligible, positives, noise)
        # An instance that is alone in the batch has nothing to be told from.
        counted = ops.logical_and(positives, eligible.any(axis=1, keep_dims=True)).astype(ms.float32)
        distances = ops.sqrt(squared + 1e-8)
        return hinges(distances, ops.gather_elements(distances, 1, chosen), self.beta, self.margin, counted)


class TripletLoss(nn.Cell):
    """The triplet loss with the hardest negatives of the batch: embeddings (B, D) -> float32 scalar.

    The mean over all pairs of one instance of max(0, |a - p|^2 - |a - n|^2 + margin), with normalised
    embeddings and the negative n that is nearest to a (Schroff et al., arXiv 1503.03832; mining by Hermans et
    al., arXiv 1703.07737); 0 without such a triplet.

    Args:
        margin: by how much the negative is to be farther, in squared distance.
    """

    keep_float32 = True
    parts = ("triplet",)

    def __init__(self, *, margin: float = 0.1):
        super().__init__(auto_prefix=False)
        self.margin = margin

    def construct(self, embeddings, instances, noise):
        squared = squared_distances(l2_normalise(embeddings))
        same, positives = _pairs(instances)
        # No squared distance of unit vectors is above 4: an anchor without negatives has no loss.
        nearest = ops.where(same, ops.full_like(squared, 5.0 + self.margin), squared).min(axis=1)
        has_negative = ops.logical_not(same.all(axis=1, keep_dims=True))
        counted = ops.logical_and(positives, has_negative).astype(ms.float32)
        loss = ops.relu(squared - nearest.reshape(-1, 1) + self.margin) * counted
        return loss.sum() / ops.maximum(counted.sum(), 1.0)


class JointLoss(nn.Cell):
    """weight * cross-entropy + (1 - weight) * metric loss, of (embedding, logits), with its parts.

    Returns (loss, *parts): cross-entropy and metric loss without their weights, and the margin loss's beta;
    `parts` has their names. What has the weight 0 is not computed, and no part.

    Targets are (classes, instances, numbers, starts): soft (B, K) or integer (B,) classes, which image each
    row is of, (B,) int32, and what `noise_rows` makes noise of, that negatives are drawn with: for B rows, or
    with `gather` for all cards'.

    Args:
        weight: lambda of the paper, 0..1.
        metric: a cell (embeddings, instances, noise) -> scalar; its `parts` are its name, and "beta" where
            it has that parameter.
        gather: a cell that brings all cards' rows together; None: each card's rows by themselves.
    """

    keep_float32 = True

    def __init__(self, *, weight: float, metric: nn.Cell, gather: nn.Cell | None = None):
        super().__init__(auto_prefix=False)
        self.weight = weight
        self.classification = CrossEntropy()
        self.metric = metric
        self.gather = gather
        self.parts = (("cross_entropy",) if weight else ()) + metric.parts

    def construct(self, outputs, targets):
        embeddings, logits = outputs
        classes, instances, numbers, starts = targets
        if self.gather is not None:
            embeddings, instances = self.gather(embeddings.astype(ms.float32), instances)
        metric = self.metric(embeddings, instances, noise_rows(numbers, starts))
        parts = (metric, self.metric.beta * 1.0) if "beta" in self.parts else (metric,)
        if self.weight == 0:
            return (metric, *parts)
        classification = self.classification(logits, classes)
        loss = self.weight * classification + (1 - self.weight) * metric
        return (loss, classification, *parts)


class GatherRows(nn.Cell):
    """All cards' rows, (B, D), (B,) -> (cards * B, D), (cards * B,), with the gradient of this card's alone.

    Every card then computes the same loss of all rows. The gradients of its own rows are `cards` times as
    large, so that the mean over cards, which the train step takes, is the gradient of that loss; a parameter
    of the loss itself has the whole gradient on every card.

    Args:
        rank: which of the cards this is.
        cards: how many there are.
    """

    def __init__(self, *, rank: int, cards: int):
        super().__init__(auto_prefix=False)
        self.rank, self.cards = rank, cards
        self.all_gather = ops.AllGather()

    def construct(self, embeddings, instances):
        rows = embeddings.shape[0]
        # The value is exact, as the other cards gather it; the gradient is `cards` times as large.
        own = embeddings + (self.cards - 1) * (embeddings - ops.stop_gradient(embeddings))
        everywhere = self.all_gather(ops.stop_gradient(embeddings))
        before, after = everywhere[: self.rank * rows], everywhere[(self.rank + 1) * rows :]
        if self.rank == 0:
            gathered = ops.concat((own, after), axis=0)
        elif self.rank == self.cards - 1:
            gathered = ops.concat((before, own), axis=0)
        else:
            gathered = ops.concat((before, own, after), axis=0)
        return gathered, self.all_gather(instances)
