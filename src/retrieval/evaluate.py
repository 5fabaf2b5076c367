# SPDX-License-Identifier: Apache-2.0
"""Retrieval from images on disk to numbers: embed every picture once, rank, score, and show."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ..common.errors import UserError
from ..data.decode import UnreadableImage
from ..data.folders import some_of
from . import scores as retrieval
from .embedding import Embedder
from .sheets import Shown
from .task import Picture, RetrievalSet

log = logging.getLogger("quartet")

_SHOWN = 10  # damaged files that are named


@dataclass(frozen=True)
class Retrieval:
    """A network's answers to a retrieval set.

    Attributes:
        pictures: the set, without the damaged images.
        database: (N, D) float32 embeddings of length 1.
        queries: (Q, D).
        ranks: by difficulty, for each query those of its positives.
        metrics: for JSON; see `src.retrieval.scores.score`.
    """

    pictures: RetrievalSet
    database: np.ndarray
    queries: np.ndarray
    ranks: dict[str, list[np.ndarray]]
    metrics: dict[str, Any]


def evaluate_retrieval(
    embedder: Embedder, pictures: RetrievalSet, *, skip_damaged: bool = False
) -> Retrieval:
    """Embeds the queries and the database, each picture once, and scores the rankings.

    With several difficulties, the names of the scores begin with them: `easy_mAP`. Where the queries are
    copies, `mAP_by_kind` has the score of each kind of distortion.

    Args:
        skip_damaged: leave pictures out that cannot be read, name them in the log, and count them as
            `damaged_images`; otherwise they are an error.

    Raises:
        UnreadableImage: a picture cannot be read.
        UserError: no picture can be read, or no query has another image to find.
    """
    unique = list(dict.fromkeys((*pictures.database, *pictures.queries)))
    vectors, damaged = _embeddings(embedder, unique, skip_damaged=skip_damaged)
    pictures = pictures.without(set(damaged))
    place = {picture: row for row, picture in enumerate(p for p in unique if p not in damaged)}
    database = vectors[: len(pictures.database)]  # which comes first in `unique`
    queries = vectors[[place[query] for query in pictures.queries]]
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in pictures.truths}
    for some, block in retrieval.similarity_blocks(queries, database):
        for query, similarity in enumerate(block, start=some.start):
            for name, truth in pictures.truths.items():
                places = retrieval.positive_ranks(similarity, truth.positives[query], truth.junk[query])
                ranks[name].append(places)
    metrics = {
        "protocol": pictures.protocol,
        "queries": len(pictures.queries),
        "images": len(pictures.database),
        "damaged_images": len(damaged),
    }
    for name, places in ranks.items():
        scores = retrieval.score(pictures.protocol, places)
        metrics |= {f"{name}_{key}" if name else key: value for key, value in scores.items()}
    if pictures.kinds:
        metrics["mAP_by_kind"] = _by_kind(pictures, ranks[""])
    return Retrieval(pictures, database, queries, ranks, metrics)


def _by_kind(pictures: RetrievalSet, ranks: Sequence[np.ndarray]) -> dict[str, float]:
    """The mAP of each kind of copy; of one whose originals cannot be read there is none."""
    kinds: dict[str, list[np.ndarray]] = {}
    for kind, places in zip(pictures.kinds, ranks, strict=True):
        if len(places):
            kinds.setdefault(kind, []).append(places)
    return {kind: retrieval.score(pictures.protocol, places)["mAP"] for kind, places in kinds.items()}


def _embeddings(
    embedder: Embedder, pictures: Sequence[Picture], *, skip_damaged: bool
) -> tuple[np.ndarray, dict[Picture, str]]:
    """(R, D) of those that can be read, in their order, and the others with what is wrong with them."""
    damaged: dict[Picture, str] = {}

    def skip(picture: Picture, error: UnreadableImage) -> None:
        damaged[picture] = f"{picture.file} ({error.reason})"

    vectors, count = np.empty((0, 0), np.float32), 0
    embedded = embedder.embed(((p, p.read) for p in pictures), skip=skip if skip_damaged else None)
    for _, vector in tqdm(embedded, desc="embedding", total=len(pictures), unit="image", disable=None):
        if not count:
            vectors = np.empty((len(pictures), len(vector)), np.float32)
        vectors[count] = vector
        count += 1
    if damaged:
        first = some_of(damaged.values(), most=_SHOWN)
        if not count:
            raise UserError(f"all {len(damaged)} images are damaged: {first}; check data_path")
        log.warning("%d of %d images are damaged and left out: %s", len(damaged), len(pictures), first)
    return vectors[:count], damaged


def sheet_rows(found: Retrieval, *, count: int = 16, columns: int = 8) -> Iterator[tuple[Shown, list[Shown]]]:
    """Rows for `src.retrieval.sheets.draw_sheet`: mistakes first, then a sample.

    Up to half of the rows are the queries of lowest average precision, the worst first; the others are spread
    evenly over the rest, by average precision too. The pictures are those of the ranking: junk is not shown.
    Of several difficulties it is `medium`.

    Args:
        count: most rows.
        columns: results of each.
    """
    name = "medium" if "medium" in found.ranks else ""
    truth = found.pictures.truths[name]
    precisions = {
        query: retrieval.average_precision(places, trapezoid=False)
        for query, places in enumerate(found.ranks[name])
        if len(places)
    }
    order = sorted(precisions, key=precisions.get)
    worst = [query for query in order[: count - count // 2] if precisions[query] < 1]
    rest = order[len(worst) :]
    places = np.linspace(0, len(rest) - 1, min(len(rest), count - len(worst))).round().astype(int)
    for query in worst + [rest[place] for place in places]:
        ((_, block),) = retrieval.similarity_blocks(found.queries[query : query + 1], found.database)
        positives, junk = truth.positives[query], truth.junk[query]
        best = retrieval.top_results(block[0], positives, junk, columns)
        results = [
            _shown(
                found.pictures.database[index], similarity=float(block[0, index]), right=index in positives
            )
            for index in best
        ]
        yield _shown(found.pictures.queries[query]), results


def _shown(picture: Picture, **facts: float | bool) -> Shown:
    return Shown(image=picture.read(), name=picture.file, **facts)
