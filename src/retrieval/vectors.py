"""The most similar of many unit vectors: exactly for few, by short codes (faiss) for many.

Similarity is the inner product, for unit vectors the cosine. Three kinds, chosen by the number n of vectors:

- exact (up to 20,000): all vectors in memory as float32, 4 D bytes each, and one matrix product a query.
- compact: a product quantiser (Jégou et al. 2011) with 16 centroids for each pair of dimensions, so 2 bits a
  dimension and D / 4 + 8 bytes a vector in memory. All codes are scanned with tables in registers (André et
  al. 2015, faiss' "fast scan"); the exact vectors of the best few hundred, which stay on the disk and in its
  cache, decide. Random vectors are the hardest case: codes and vectors correlate there by 0.94.
- cells (above 1,000,000): the same codes in an inverted file of sqrt(n) cells, of which a query scans
  `probes`. A neighbour in a cell that is not scanned is missed. How many are scanned unless told otherwise is
  measured as the index is built: where 95 % of the nearest of some of its own vectors are, 256 at least.
  Vectors without clusters need most cells.
"""

import os
from typing import Literal, Self

import cv2
import faiss
import numpy as np

from ..common.errors import UserError
from ..common.files import atomic_path

Kind = Literal["exact", "compact", "cells"]

EXACT_UP_TO, CELLS_ABOVE = 20_000, 1_000_000
LEAST_PROBES = 256
_PROBED, _NEAREST, _REACHED = 128, 10, 0.95  # vectors whose nearest are looked for, and how many are reached
_CENTROIDS = 16  # the fast scan takes codes of 4 bits
_TRAINED_ON = 8192  # vectors, for 16 centroids of 2 dimensions each
_TRAINED_A_CELL = 40
_BLOCK = 8192  # vectors that are in memory as float32 at once


class VectorIndex:
    """Unit vectors that can be asked for the most similar ones. Made by `build` or `load`.

    Attributes:
        kind: one of `Kind`.
        probes: cells that are scanned unless told otherwise; 1 where there are none.
    """

    def __init__(self, vectors: np.ndarray, codes: faiss.IndexIVFPQFastScan | None) -> None:
        self._vectors = vectors if codes else np.asarray(vectors, np.float32)
        self._codes = codes
        self.kind: Kind = "exact" if not codes else "compact" if codes.nlist == 1 else "cells"
        # faiss keeps it in its file.
        self.probes = max(codes.nprobe, min(LEAST_PROBES, codes.nlist)) if codes else 1

    def __len__(self) -> int:
        return len(self._vectors)

    @classmethod
    def build(cls, vectors: np.ndarray, *, cells: int | None = None) -> Self:
        """Trains the codes on a sample and encodes all, a block at a time: vectors may be a memory map.

        Args:
            vectors: (n, D) float16 or float32 of length 1; they are not copied but for the kind exact.
            cells: 1 makes the kind compact, more make it cells; None lets n decide.

        Raises:
            UserError: fewer vectors than cells, or than 16 for codes.
        """
        count, dimension = vectors.shape
        if cells is None:
            if count <= EXACT_UP_TO:
                return cls(vectors, None)
            cells = 1 if count <= CELLS_ABOVE else round(count**0.5)
        least = max(_CENTROIDS, cells)
        if count < least:
            raise UserError(f"cells: {count} vectors are too few, {least} are needed; leave it out")
        pairs = -(-dimension // 2)
        # One cell stands for none: IndexPQFastScan's 16-bit sums can overflow from 258 pairs (faiss 1.15.1),
        # so that it misses the nearest vectors of all; the tables of the inverted file are scaled to fit.
        codes = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(2 * pairs), 2 * pairs, cells, pairs, 4, faiss.METRIC_INNER_PRODUCT
        )
        codes.by_residual = False  # one table a query serves all cells
        codes.cp.niter, codes.pq.cp.niter = 10, 8
        codes.cp.min_points_per_centroid = codes.pq.cp.min_points_per_centroid = 1  # or it would warn
        sampled = max(_TRAINED_ON, _TRAINED_A_CELL * cells)
        rows = np.arange(count)
        if count > sampled:
            rows = np.sort(np.random.default_rng(0).choice(count, sampled, replace=False))
        codes.train(_padded(vectors[rows]))
        for start in range(0, count, _BLOCK):
            codes.add(_padded(vectors[start : start + _BLOCK]))
        if cells > 1:
            codes.nprobe = _probes_needed(codes.quantizer, vectors)
        return cls(vectors, codes)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the codes, without the vectors; the kind exact has none and writes nothing.

        Raises:
            UserError: the file cannot be written.
        """
        if self._codes:
            with atomic_path(path) as temporary:
                try:
                    faiss.write_index(self._codes, os.fspath(temporary))
                except RuntimeError as error:
                    raise OSError(str(error)) from error

    @classmethod
    def load(cls, vectors: np.ndarray, path: str | os.PathLike | None) -> Self:
        """The index of `vectors`, (n, D), with the codes that `save` wrote; None for the kind exact.

        Raises:
            UserError: the file is missing, damaged, or of other vectors.
        """
        if path is None:
            return cls(vectors, None)
        try:
            codes = faiss.read_index(os.fspath(path))
        except RuntimeError as error:
            raise UserError(f"{path} is no whole index of codes; build the index again") from error
        if (codes.ntotal, codes.d) != (len(vectors), vectors.shape[1] + vectors.shape[1] % 2):
            raise UserError(f"{path} belongs to other vectors; build the index again")
        return cls(vectors, codes)

    def search(
        self, queries: np.ndarray, top: int, *, probes: int | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The `top` most similar vectors of each query, the most similar first; of equals the first row.

        Similarities are rounded to 6 decimals, so that those of equal vectors are equal wherever they stand.

        Args:
            queries: (Q, D) of length 1.
            top: fewer are given where there are fewer, or where the scanned cells hold fewer.
            probes: cells that are scanned; None for those of the attribute.

        Returns:
            for each query the rows, int64, and their similarities, float32.
        """
        queries = np.asarray(queries, np.float32)
        if not self._codes:
            everything = np.arange(len(self))
            return [_best(everything, self._vectors @ query, top) for query in queries]
        how = faiss.SearchParametersIVF(nprobe=min(probes or self.probes, self._codes.nlist))
        # The tenth of 100,000 random vectors is by its code among the first 512 in 99.5 of 100 cases.
        wanted = min(len(self), max(512, 20 * top))
        _, candidates = self._codes.search(_padded(queries), wanted, params=how)
        found = []
        for query, rows in zip(queries, candidates):
            rows = np.sort(rows[rows >= 0])
            found.append(_best(rows, _as_float32(self._vectors[rows]) @ query, top))
        return found


def _probes_needed(cells: faiss.IndexFlatIP, vectors: np.ndarray) -> int:
    """How many cells a query scans to reach most of its nearest vectors, by queries that are vectors here."""
    rows = np.random.default_rng(0).choice(len(vectors), min(_PROBED, len(vectors)), replace=False)
    queries = _padded(vectors[np.sort(rows)])
    nearest = faiss.ResultHeap(len(queries), _NEAREST + 1, keep_max=True)  # the first is the query itself
    for start in range(0, len(vectors), _BLOCK):
        block = _padded(vectors[start : start + _BLOCK])
        count = min(_NEAREST + 1, len(block))
        similarities, found = faiss.knn(queries, block, count, faiss.METRIC_INNER_PRODUCT)
        nearest.add_result(similarities, found + start)
    nearest.finalize()
    neighbours = nearest.I[:, 1:].ravel()
    cell_of = cells.search(_padded(vectors[neighbours]), 1)[1].reshape(len(queries), -1)
    place_of = np.argsort(cells.search(queries, cells.ntotal)[1], axis=1)
    reached = np.take_along_axis(place_of, cell_of, axis=1)
    return int(np.quantile(reached, _REACHED, method="higher")) + 1


def _best(rows: np.ndarray, similarities: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` of ascending rows."""
    similarities = np.round(similarities, 6)
    order = np.argsort(-similarities, kind="stable")[:top]
    return rows[order], similarities[order]


def _as_float32(vectors: np.ndarray) -> np.ndarray:
    """A conversion of half floats in an eighth of numpy's time, which would be a third of a query."""
    if vectors.dtype == np.float16:
        return cv2.convertFp16(np.ascontiguousarray(vectors).view(np.int16))
    return np.asarray(vectors, np.float32)


def _padded(vectors: np.ndarray) -> np.ndarray:
    """float32, with a column of zeros where the dimension is odd: codes are for pairs."""
    vectors = _as_float32(vectors)
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2))))
