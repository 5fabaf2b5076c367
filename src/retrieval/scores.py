# SPDX-License-Identifier: Apache-2.0
"""Retrieval: where the right images of each query come in a ranking, and the published scores of that.

A ranking is by similarity, highest first; of equal similarity, the wrong images come first, so that an
embedding that is the same for all images earns nothing, and no score depends on the order of the files.
Copies of an image are therefore no special case. Products are taken in float64 and rounded to float32: those
of equal vectors are equal then, wherever in a matrix they stand.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..common.errors import UserError

_PRODUCTS = 1 << 24  # of a block of similarities, 64 MiB
_ROWS = 4096  # of the database that are in float64 at once

RECALL_AT = (1, 5, 10)
PRECISION_AT = (1, 5, 10)


def similarity_blocks(queries: np.ndarray, database: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Scalar products of (Q, D) and (N, D) vectors, some queries at a time: (which, (q, N) float32)."""
    step = max(1, _PRODUCTS // max(1, len(database)))
    for start in range(0, len(queries), step):
        some = slice(start, min(start + step, len(queries)))
        left = queries[some].astype(np.float64)
        block = np.empty((len(left), len(database)), np.float32)
        for first in range(0, len(database), _ROWS):
            rows = slice(first, first + _ROWS)
            block[:, rows] = left @ database[rows].astype(np.float64).T
        yield some, block


def positive_ranks(similarity: np.ndarray, positives: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """The places, from 0, of one query's positives in the ranking without the junk.

    Args:
        similarity: (N,) to every image of the database.
        positives: (P,) which images are right.
        junk: (J,) which images are neither right nor wrong: they are taken out of the ranking, also if they
            are among the positives.

    Returns:
        int64, ascending: one for each positive that is no junk.
    """
    positives = positives[~np.isin(positives, junk)]
    right = np.sort(similarity[positives])
    wrong = np.delete(similarity, np.concatenate([positives, junk]).astype(np.int64))
    # A wrong image comes before those of the right ones that are not above it.
    passed = np.bincount(np.searchsorted(right, wrong, side="right"), minlength=len(right) + 1)
    before = passed[::-1].cumsum()[: len(right)]
    return before + np.arange(len(right))


def top_results(similarity: np.ndarray, positives: np.ndarray, junk: np.ndarray, count: int) -> np.ndarray:
    """The first `count` images of the ranking without the junk, as indices."""
    is_right = np.zeros(len(similarity), bool)
    is_right[positives] = True
    order = np.lexsort((is_right, -similarity))
    return order[~np.isin(order, junk)][:count]


def average_precision(ranks: np.ndarray, *, trapezoid: bool) -> float:
    """Average precision of one query in 0..1, from the ranks of all its positives (ascending, from 0).

    Plain, the mean of the precision at each positive, (j + 1) / (rank + 1) for the j-th: that of
    information retrieval, and scikit-learn's `average_precision_score` where no similarities are equal. With
    `trapezoid` the area under the line through precision before and at each positive, so the mean of that
    and j / rank (1 at rank 0): that of the evaluation programs of Oxford 5k (Philbin et al., CVPR 2007),
    Holidays (Jegou et al., ECCV 2008) and all that compare with them.
    """
    found = np.arange(len(ranks))
    at = (found + 1) / (ranks + 1)
    if not trapezoid:
        return float(at.mean())
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    return float((before + at).mean() / 2)


def precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of right images among the first k, in 0..1; k is lowered to the place of the last right one.

    As in the evaluation of Revisited Oxford and Paris (Radenovic et al., CVPR 2018): a query whose right
    images are all found before k loses nothing by the wrong ones that follow.
    """
    k = min(k, int(ranks[-1]) + 1)
    return float((ranks < k).sum() / k)


def score(protocol: str, ranks: Sequence[np.ndarray]) -> dict[str, float]:
    """The scores of a protocol; shares in per cent.

    ukb                   `N-S`, 0 to 4: how many of the group's four images, the query among them, are in the
                          first four places, on average (Nister and Stewenius, CVPR 2006).
    roxford5k, rparis6k   `mAP` by trapezoids and `mP@k`, the mean of `precision_at`.
    holidays, copydays    `mAP` by trapezoids and `recall@k`, the share of queries with a right image among
                          the first k.
    groups, query_gallery `mAP`, plain, and `recall@k`.

    Args:
        protocol: one of these.
        ranks: of the positives of each query, ascending, from 0. Queries without positives are left out of
            all means, and counted as `queries_without_positives`.

    Raises:
        UserError: no query has positives.
    """
    counted = [places for places in ranks if len(places)]
    if not counted:
        raise UserError(
            f"none of the {len(ranks)} queries has another image of its own kind to find; "
            "check data_path and --protocol"
        )
    if protocol == "ukb":
        scores = {"N-S": float(np.mean([(places < 4).sum() for places in counted]))}
    else:
        trapezoid = protocol not in ("groups", "query_gallery")
        precisions = [average_precision(places, trapezoid=trapezoid) for places in counted]
        scores = {"mAP": 100 * float(np.mean(precisions))}
        if protocol in ("roxford5k", "rparis6k"):
            for k in PRECISION_AT:
                scores[f"mP@{k}"] = 100 * float(np.mean([precision_at(places, k) for places in counted]))
        else:
            first = np.array([places[0] for places in counted])
            scores |= {f"recall@{k}": 100 * float((first < k).mean()) for k in RECALL_AT}
    return {**scores, "queries_without_positives": len(ranks) - len(counted)}
