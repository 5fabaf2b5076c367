# SPDX-License-Identifier: Apache-2.0
"""The probe's two shares, against loops over images, and what they are where an embedding knows nothing."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from mindspore import nn

from src.data.batches import EvalBatches
from src.data.preparation import Preparation
from src.layers.norm import batch_norm2d
from src.layers.pixels import Pixels
from src.multigrain.probe import KnnProbe, balanced_subset, knn_correct, nearest_is_own
from src.retrieval.copies import KINDS, copy_rng, distort
from tests.helpers.pictures import Pictures

pytestmark = pytest.mark.usefixtures("graph_mode")

INPUTS = Pixels([0, 0, 0], [1, 1, 1])


class Network(nn.Cell):
    """The embedding is the picture itself, or its pixels times nothing; with statistics that could change."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.bn = scale, batch_norm2d(channels=3)

    def embed(self, x):
        return self.bn(x).reshape(x.shape[0], -1) * self.scale + (1 - self.scale)


def random_pictures(count, seed, side=12):
    """Of five classes, told by the colour; the number of a picture modulo 5 is its class."""
    rng = np.random.default_rng(seed)
    tint = np.random.default_rng(0).integers(0, 160, (5, 3))
    small = rng.integers(0, 96, (count, 4, 4, 3)) + tint[np.arange(count) % 5, None, None]
    return Pictures(list(np.repeat(np.repeat(small, 3, 1), 3, 2).astype(np.uint8)), class_names="abcde")


def prepare(source):
    return EvalBatches(source, Preparation(12, (9, 8, 7), (50, 60, 70)), batch_size=8, normalised=False)


def slow_knn(queries, labels, bank, bank_labels, k=20):
    correct = 0
    for query, label in zip(queries, labels):
        near = [
            (round(sum(map(lambda a, b: a * b, query, other)), 6), c) for other, c in zip(bank, bank_labels)
        ]
        least = sorted(near, reverse=True)[min(k, len(near)) - 1][0]
        votes = defaultdict(float)
        for similarity, other in near:
            if similarity >= least:
                votes[other] += math.exp(similarity / 0.07)
        correct += all(votes[label] > (1 + 1e-9) * votes[c] for c in range(5) if c != label)
    return 100 * correct / len(queries)


def slow_recall(copies, queries):
    hits = 0
    for n, copy in enumerate(copies):
        near = [round(float(np.dot(copy, query)), 6) for query in queries]
        hits += all(near[n] > other for m, other in enumerate(near) if m != n)
    return 100 * hits / len(copies)


def normal(pictures):
    rows = np.array([np.asarray(p, np.float64).transpose(2, 0, 1).ravel() for p in pictures])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_both_shares_against_loops_over_the_images():
    bank, queries = random_pictures(60, 1), random_pictures(50, 2)
    network = Network().set_train(False)
    before = [p.asnumpy().copy() for p in network.get_parameters()]
    probe = KnnProbe(network, INPUTS, bank=bank, queries=queries, images=35, seed=4, prepare=prepare)
    shares = probe.measure(None)
    of_bank, of_queries = balanced_subset(bank.labels, 35, 4), balanced_subset(queries.labels, 35, 4)
    originals = [queries.pictures[n] for n in of_queries]
    copies = [distort(p, KINDS[n % len(KINDS)], copy_rng(4, n)) for n, p in enumerate(originals)]
    expected = {
        "knn_top1": slow_knn(
            normal(originals), of_queries % 5, normal([bank.pictures[n] for n in of_bank]), of_bank % 5
        ),
        "instance_recall": slow_recall(normal(copies), normal(originals)),
    }
    assert shares == pytest.approx(expected, abs=1e-9)
    assert 20 < shares["knn_top1"] < 100 and 20 < shares["instance_recall"] < 100
    for parameter, value in zip(network.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value)
    assert not network.training
    network.set_train(True).set_train(False)
    assert probe.measure(None) == shares


def test_normalised_images_score_as_bytes_do():
    def normalised(source):
        return EvalBatches(source, Preparation(12, (9, 8, 7), (50, 60, 70)), batch_size=8)

    sources = {"bank": random_pictures(30, 1), "queries": random_pictures(30, 2), "images": 30, "seed": 0}
    network, inputs = Network().set_train(False), Pixels([9, 8, 7], [50, 60, 70])
    by_bytes, by_floats = (
        KnnProbe(network, inputs, prepare=how, **sources).measure(None) for how in (prepare, normalised)
    )
    assert by_bytes == by_floats


@pytest.mark.parametrize("scale", [0.0, math.nan, math.inf], ids=["constant", "NaN", "infinite"])
def test_an_embedding_that_knows_nothing_scores_nothing(scale):
    source = random_pictures(25, 1)
    network = Network(scale).set_train(False)
    probe = KnnProbe(network, INPUTS, bank=source, queries=source, images=25, seed=0, prepare=prepare)
    assert probe.measure(None) == {"knn_top1": 0, "instance_recall": 0}


def test_the_knn_vote_by_hand():
    bank_labels = np.array([0] * 30 + [1])
    # Twenty far neighbours of class 0 weigh less than the near one of class 1: 20 exp(-.3/.07) < 1.
    similarities = np.full((3, 31), 0.6)
    similarities[:, 30] = [0.9, 0.75, 0.6]  # all 31 are as near as the 20th: 30 votes to 1
    similarities[1, :10] = 0.5  # not among the 20: neither do they vote where they would matter
    assert knn_correct(similarities, np.array([1, 1, 1]), bank_labels).tolist() == [True, False, False]
    assert knn_correct(similarities, np.array([0, 0, 0]), bank_labels).tolist() == [False, True, True]
    two = np.array([[0.4, 0.4 + 1e-9], [0.4, 0.4 + 1e-5]])
    assert knn_correct(two, np.array([1, 1]), np.array([0, 1])).tolist() == [False, True]
    # A class that the bank does not have.
    assert knn_correct(two, np.array([2, 0]), np.array([0, 1])).tolist() == [False, False]


def test_recall_by_hand():
    similarities = np.array([[0.9, 0.1, 0.2], [0.5, 0.5 + 1e-9, 0.1], [0.7, 0.1, 0.6]])
    assert nearest_is_own(similarities).tolist() == [True, False, False]
    assert nearest_is_own(np.eye(3)).all() and not nearest_is_own(1 - np.eye(3)).any()


def test_the_subset_is_balanced_and_follows_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [50, 2, 30, 40]))
    chosen = balanced_subset(labels, 20, 0)
    assert Counter(labels[chosen].tolist()) == {0: 6, 1: 2, 2: 6, 3: 6}
    assert len(set(chosen)) == 20 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, balanced_subset(labels, 20, 0))
    assert set(chosen) != set(balanced_subset(labels, 20, 1))
    np.testing.assert_array_equal(balanced_subset(labels, 500, 0), np.arange(122))
    counts = Counter(labels[balanced_subset(labels, 3, 0)].tolist())
    assert sorted(counts.values()) == [1, 1, 1]
