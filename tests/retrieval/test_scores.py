# SPDX-License-Identifier: Apache-2.0
"""Places in a ranking and the scores of the protocols, against oracles, scikit-learn and hand-made cases."""

import ast

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from src.common.errors import UserError
from src.retrieval import scores as retrieval
from tests.vectors.official import read

NONE = np.array([], np.int64)


def slow_ranks(similarity, positives, junk):
    """Sorts the images one by one: higher first, of equals the wrong ones first."""
    kept = [index for index in range(len(similarity)) if index not in junk]
    order = sorted(kept, key=lambda index: (-similarity[index], index in positives))
    return [place for place, index in enumerate(order) if index in positives]


def random_case(rng, *, levels=None):
    count = int(rng.integers(1, 30))
    similarity = rng.normal(size=count).astype(np.float32)
    if levels:
        similarity = rng.integers(0, levels, count).astype(np.float32)
    kinds = rng.integers(0, 3, count)
    return similarity, np.flatnonzero(kinds == 0), np.flatnonzero(kinds == 1)


@pytest.mark.parametrize("levels", [None, 1, 3])
def test_ranks_are_those_of_sorting(levels):
    rng = np.random.default_rng(0)
    for _ in range(100):
        similarity, positives, junk = random_case(rng, levels=levels)
        ranks = retrieval.positive_ranks(similarity, positives, junk)
        assert ranks.tolist() == slow_ranks(similarity, positives, junk)
        top = retrieval.top_results(similarity, positives, junk, 40)
        assert np.flatnonzero(np.isin(top, positives)).tolist() == ranks.tolist()
        assert sorted([*top, *junk]) == list(range(len(similarity)))


def test_junk_wins_over_positive():
    similarity = np.array([1.0, 0.9, 0.8, 0.7], np.float32)
    assert retrieval.positive_ranks(similarity, np.array([0, 3]), np.array([0])).tolist() == [2]
    assert retrieval.positive_ranks(similarity, np.array([0]), np.array([0])).tolist() == []


def test_a_constant_embedding_earns_nothing():
    """In 7 and 2,048 dimensions, of which no product is exact."""
    for size in (7, 2048):
        same = np.tile(np.random.default_rng(size).normal(size=size).astype(np.float32), (301, 1))
        same /= np.linalg.norm(same, axis=1, keepdims=True)
        for some, block in retrieval.similarity_blocks(same[:9], same):
            for query, row in enumerate(block, some.start):
                ranks = retrieval.positive_ranks(row, np.array([150, 300]), np.array([query]))
                assert ranks.tolist() == [298, 299]


def test_a_copy_of_a_right_image_is_right_or_wrong_by_its_own_label():
    rng = np.random.default_rng(1)
    database = rng.normal(size=(50, 64)).astype(np.float32)
    query = database[:1]
    database[[10, 40]] = query  # with 0, three copies of the query
    ((_, block),) = retrieval.similarity_blocks(query, database)
    assert retrieval.positive_ranks(block[0], np.array([10, 40]), np.array([0])).tolist() == [0, 1]
    assert retrieval.positive_ranks(block[0], np.array([10]), np.array([0])).tolist() == [1]


def test_blocks_are_the_whole_product(monkeypatch):
    rng = np.random.default_rng(2)
    queries, database = (rng.normal(size=(n, 5)).astype(np.float32) for n in (11, 23))
    whole = (queries.astype(np.float64) @ database.astype(np.float64).T).astype(np.float32)
    monkeypatch.setattr(retrieval, "_PRODUCTS", 50)
    monkeypatch.setattr(retrieval, "_ROWS", 4)
    blocks = list(retrieval.similarity_blocks(queries, database))
    assert [len(block) for _, block in blocks] == [2, 2, 2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), whole)


def test_plain_average_precision_is_scikit_learns():
    rng = np.random.default_rng(3)
    for _ in range(50):
        similarity, positives, _ = random_case(rng)
        if len(positives):
            ranks = retrieval.positive_ranks(similarity, positives, NONE)
            expected = average_precision_score(np.isin(np.arange(len(similarity)), positives), similarity)
            assert retrieval.average_precision(ranks, trapezoid=False) == pytest.approx(expected, abs=1e-12)


def test_trapezoids_are_the_official_ones():
    """Those also score rankings that lack some of the positives, which add nothing to the sum."""
    vectors = read("multigrain.npz")
    for ranks, count, expected in zip(vectors.ap_ranks, vectors.ap_nres, vectors.ap, strict=True):
        ranks = np.array(ast.literal_eval(str(ranks)))
        found = retrieval.average_precision(ranks, trapezoid=True) * len(ranks) / count
        assert found == pytest.approx(expected, abs=1e-12)


def test_trapezoids_by_hand():
    # Right, wrong, right: precision 1 before and at the first; 1/2 before and 2/3 at the second.
    assert retrieval.average_precision(np.array([0, 2]), trapezoid=True) == pytest.approx(
        (1 + (1 / 2 + 2 / 3) / 2) / 2
    )
    assert retrieval.average_precision(np.array([0, 2]), trapezoid=False) == pytest.approx((1 + 2 / 3) / 2)


def test_precision_stops_at_the_last_right_image():
    ranks = np.array([0, 2, 3])
    assert [retrieval.precision_at(ranks, k) for k in (1, 2, 3, 5, 10)] == [1, 1 / 2, 2 / 3, 3 / 4, 3 / 4]
    assert retrieval.precision_at(np.array([7]), 5) == 0


def places(*ranks):
    return [np.array(some, np.int64) for some in ranks]


def test_scores_of_each_protocol():
    ranks = places([0, 1], [4], [], [11])
    holidays = retrieval.score("holidays", ranks)
    by_trapezoid = [1, (0 + 1 / 5) / 2, (0 + 1 / 12) / 2]
    assert holidays == pytest.approx(
        {
            "mAP": 100 * np.mean(by_trapezoid),
            "recall@1": 100 / 3, "recall@5": 200 / 3, "recall@10": 200 / 3,
            "queries_without_positives": 1,
        }
    )  # fmt: skip
    assert retrieval.score("copydays", ranks) == holidays
    groups = retrieval.score("groups", ranks)
    assert groups["mAP"] == pytest.approx(100 * np.mean([1, 1 / 5, 1 / 12]))
    revisited = retrieval.score("rparis6k", ranks)
    assert set(revisited) == {"mAP", "mP@1", "mP@5", "mP@10", "queries_without_positives"}
    assert revisited["mAP"] == holidays["mAP"]
    assert revisited["mP@10"] == pytest.approx(100 * np.mean([1, 1 / 5, 0]))
    ukb = retrieval.score("ukb", places([0, 1, 2, 3], [0, 3, 4, 9]))
    assert ukb == {"N-S": 3.0, "queries_without_positives": 0}


def test_no_query_with_positives_is_an_error():
    with pytest.raises(UserError, match=r"^none of the 2 queries"):
        retrieval.score("groups", places([], []))
