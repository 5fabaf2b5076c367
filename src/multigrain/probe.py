# SPDX-License-Identifier: Apache-2.0
"""What embeddings know while they are trained: the class of an image by its neighbours, and its copies."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from mindspore import nn

from ..data.damage import Pictures
from ..data.resize import Plan
from ..evaluation.evaluate import Batch, answers, as_function
from ..retrieval.copies import KINDS, copy_rng, distort

NEIGHBOURS, TEMPERATURE = 20, 0.07
_DIGITS = 6  # of a cosine similarity: embeddings are float32, and beyond these digits two are equal

Prepare = Callable[[Pictures], Iterable[Batch]]


@dataclass(frozen=True)
class CopiedPictures:
    """A distorted copy of each picture of a source, the kinds of `KINDS` by turns; always the same ones."""

    source: Pictures
    seed: int

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def read(self, index: int, plan: Plan) -> np.ndarray:
        """(h, w, 3) uint8; several threads call it at once."""
        kind = KINDS[index % len(KINDS)]
        copy = distort(self.source.read(index), kind, copy_rng(self.seed, index))
        return plan(*copy.shape[:2])(copy)


class KnnProbe:
    """`knn_top1` and `instance_recall` of a network's embeddings (the protocol: training/monitor.py).

    - knn_top1: share of the queries whose class is that of the vote of their 20 nearest in the bank by cosine
      similarity, each with the weight exp(similarity / 0.07) (Wu et al., arXiv 1805.01978; DINO,
      arXiv 2104.14294, with 20 neighbours).
    - instance_recall: share of the queries' distorted copies, one of each query, whose original is the
      nearest among all queries.

    What is equal to six digits counts as equal, and against the network: all that are as near as the 20th
    vote; the class must have more votes than any other, and the original must be nearer than any other
    query. Embeddings that are all the same, or not finite, score 0 unless there is a single class or query.

    The images are drawn once, the same number of each class or one less, read and kept in memory as
    `prepare` makes them.

    Args:
        network: with `embed`.
        inputs: a cell from a batch's images to what the network takes.
        bank: labelled pictures, those that are trained on.
        queries: labelled pictures that are not; they and the bank are those of one data set.
        images: how many to take of each, where there are as many.
        seed: says which, and what copies are made of them.
        prepare: from a source to batches (images, labels, valid) of one shape, as evaluation prepares them;
            bytes take a quarter of the memory of what is normalised.
    """

    parameters = ()

    def __init__(
        self,
        network: nn.Cell,
        inputs: nn.Cell,
        *,
        bank: Pictures,
        queries: Pictures,
        images: int,
        seed: int,
        prepare: Prepare,
    ):
        self.embed = as_function(_Embedding(network, inputs))
        chosen = queries.take(balanced_subset(queries.labels, images, seed))
        self.bank, self.queries, self.copies = (
            list(prepare(source))
            for source in (
                bank.take(balanced_subset(bank.labels, images, seed)),
                chosen,
                CopiedPictures(chosen, seed),
            )
        )

    def measure(self, images: Callable[[], np.ndarray]) -> dict[str, float]:
        """The two shares, in per cent; `images` are not read."""
        bank, bank_labels = self._embed(self.bank)
        queries, labels = self._embed(self.queries)
        copies, _ = self._embed(self.copies)
        return {
            "knn_top1": 100 * float(knn_correct(queries @ bank.T, labels, bank_labels).mean()),
            "instance_recall": 100 * float(nearest_is_own(copies @ queries.T).mean()),
        }

    def _embed(self, batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
        """(N, D) float64 of length 1, and (N,) labels."""
        rows, labels = zip(*((batch.outputs, batch.labels) for batch in answers(self.embed, batches)))
        embeddings = np.concatenate(rows)
        with np.errstate(invalid="ignore"):  # infinity by infinity: not a number, which is near to nothing
            embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return embeddings, np.concatenate(labels)


class _Embedding(nn.Cell):
    """The network's embedding of a batch's images, as one graph."""

    def __init__(self, network: nn.Cell, inputs: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network, self.inputs = network, inputs

    def construct(self, images):
        return self.network.embed(self.inputs(images))


def balanced_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(min(count, N),) sorted indices, as many of each class as of any other, or one less, where it has them.

    Args:
        labels: (N,) integers.
        count: how many, 1 or above.
        seed: 0 or above.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[order], kind="stable")
    sorted_labels = labels[order][by_class]
    turn = np.empty(len(labels), np.int64)  # how many of its class come before
    turn[by_class] = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])


def knn_correct(similarities: np.ndarray, labels: np.ndarray, bank_labels: np.ndarray) -> np.ndarray:
    """Whether the weighted vote of the nearest gives the class, (Q,) booleans; `KnnProbe` says how.

    Args:
        similarities: (Q, B) cosines of queries and bank.
        labels: (Q,) of the queries.
        bank_labels: (B,) integers.
    """
    similarities = np.round(similarities, _DIGITS)
    neighbours = min(NEIGHBOURS, similarities.shape[1])
    least = -np.partition(-similarities, neighbours - 1, axis=1)[:, neighbours - 1, None]
    highest = similarities.max(axis=1, keepdims=True)
    weights = np.where(similarities >= least, np.exp((similarities - highest) / TEMPERATURE), 0)
    votes = weights @ (bank_labels[:, None] == np.arange(1 + max(labels.max(), bank_labels.max())))
    own = votes[np.arange(len(labels)), labels]
    votes[np.arange(len(labels)), labels] = 0
    return own > votes.max(axis=1) + 10.0**-_DIGITS


def nearest_is_own(similarities: np.ndarray) -> np.ndarray:
    """Whether copy n is nearer to original n than to any other, (N,) booleans.

    Args:
        similarities: (N, N) cosines, copies by originals.
    """
    similarities = np.round(similarities, _DIGITS)
    own = similarities.diagonal().copy()
    np.fill_diagonal(similarities, -np.inf)
    return own > similarities.max(axis=1)
