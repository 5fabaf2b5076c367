"""How much of a search in a million vectors is found in how many cells of the inverted file, and how fast?

    python -m benchmarks.search_cells [--vectors 1000000] [--dimension 256]

Two sets of unit vectors, kept as float16 in a file: independent random ones, the hardest case, which have no
clusters for cells to follow; and clustered ones, 10,000 random centres with noise about them (cosine to the
centre about 0.8). Two kinds of queries to each, 200: new vectors of the same kind, and copies of vectors with
noise (cosine to the original about 0.7). Each is asked alone, with several --probes; `default` is what the
build measured. The same vectors without cells are timed beside. What should be found is computed from all
vectors in float32. Writes benchmarks/records/search_cells.json; there is no bar.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, parser, write_record
from benchmarks.search_index import BLOCK, QUERIES, TOP, ask, timed, unit

CENTRES, PROBES = 10_000, (16, 64, 128)


def noisy(rng: np.random.Generator, vectors: np.ndarray, noise: float) -> np.ndarray:
    """With noise of that length beside the vectors' 1."""
    return unit(vectors + noise * unit(rng.standard_normal(vectors.shape, np.float32)))


def clustered(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    centres = unit(np.random.default_rng(1).standard_normal((CENTRES, dimension), np.float32))
    return noisy(rng, centres[rng.integers(0, CENTRES, count)], 0.75)


def independent(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    return unit(rng.standard_normal((count, dimension), np.float32))


class Probing:
    """An index with another number of probes, as `ask` takes one."""

    def __init__(self, index, probes: int | None):
        self.index, self.probes = index, probes

    def search(self, queries: np.ndarray, top: int):
        return self.index.search(queries, top, probes=self.probes)


def measure(make, count: int, dimension: int, folder: Path) -> dict:
    from src.retrieval.vectors import VectorIndex

    rng = np.random.default_rng(0)
    vectors = np.empty((count, dimension), np.float32)
    for start in range(0, count, BLOCK):
        vectors[start : start + BLOCK] = make(rng, len(vectors[start : start + BLOCK]), dimension)
    copied = vectors[rng.choice(count, QUERIES, replace=False)]
    kinds = {"new_vectors": make(rng, QUERIES, dimension), "noisy_copies": noisy(rng, copied, 1.0)}
    expected = {
        name: np.array([np.argsort(-(vectors @ query))[:TOP] for query in queries])
        for name, queries in kinds.items()
    }
    np.save(folder / "vectors.npy", vectors.astype(np.float16))
    del vectors
    stored = np.load(folder / "vectors.npy", mmap_mode="r")
    cells = round(count**0.5)
    built, index = timed(lambda: VectorIndex.build(stored, cells=cells))
    codes = folder / "codes.faiss"
    index.save(codes)
    asked = {**{str(n): n for n in PROBES}, "default": None, "all": cells}
    result = {
        "build_seconds": round(built, 1),
        "code_bytes_a_vector": round(codes.stat().st_size / count, 1),
        "cells": cells,
        "default_probes": index.probes,
        "by_probes": {
            name: {kind: ask(Probing(index, n), kinds[kind], expected[kind]) for kind in kinds}
            for name, n in asked.items()
        },
    }
    built, index = timed(lambda: VectorIndex.build(stored, cells=1))
    without = {kind: ask(Probing(index, None), kinds[kind], expected[kind]) for kind in kinds}
    return result | {"without_cells": {"build_seconds": round(built, 1)} | without}


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--vectors", type=int, default=1_000_000, help="how many (default 1,000,000)")
    flags.add_argument("--dimension", type=int, default=256, help="of each (default 256)")
    flags.add_argument("--record", type=Path, default=RECORDS / "search_cells.json")
    own = flags.parse_args()

    import faiss

    results = {}
    for make in (independent, clustered):
        with tempfile.TemporaryDirectory() as folder:
            result = measure(make, own.vectors, own.dimension, Path(folder))
        results[make.__name__] = result
        print(f"{make.__name__}: built in {result['build_seconds']} s, probes {result['default_probes']}")
        for probes, found in [*result["by_probes"].items(), ("without", result["without_cells"])]:
            for kind in ("new_vectors", "noisy_copies"):
                one = found[kind]
                print(
                    f"  {probes:8} {kind:12} {one['query_ms']['median']:7.2f} ms, recall@10 "
                    f"{one['recall_at_10']:.3f}, first {one['first_is_right']:.3f}"
                )
    write_record(
        own.record,
        question=f"search in {own.vectors:,} unit vectors of {own.dimension} dimensions "
        "by an inverted file, one query at a time",
        command="python -m benchmarks.search_cells",
        versions={"faiss": faiss.__version__},
        vectors=own.vectors,
        dimension=own.dimension,
        **results,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
