"""How fast and how complete is the search in 100,000 vectors? Short codes with exact re-ranking, and a scan.

    python -m benchmarks.search_index [--vectors 100000] [--dimension 2048] [--builds 3] [--record FILE]

Independent random unit vectors, the hardest case: no vector is near another, and the tenth neighbour is
hardly nearer than the hundredth. They are in a file as float16, as the index of `src.tools.search` keeps
them. Two kinds of queries, 200 each: random ones, and copies of vectors with noise (cosine to the original
about 0.7). Each query is asked alone, after one that is not counted. What should be found is computed from
float32 vectors; their scan, all in memory, is timed beside. Writes benchmarks/records/search_index.json. The
bars: built in a minute, a query in 10 ms (median), recall@10 of 0.99 for both kinds.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, parser, spread, write_record

QUERIES, TOP, BLOCK = 200, 10, 10_000
BARS = {"build_seconds": 60, "query_ms": 10, "recall_at_10": 0.99}


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(run) -> tuple[float, object]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def scan_seconds(vectors: np.ndarray, query: np.ndarray) -> float:
    return timed(lambda: np.argpartition(-(vectors @ query), TOP)[:TOP])[0]


def milliseconds(seconds: list[float]) -> dict[str, float]:
    p10, median, p90 = (round(1e3 * value, 2) for value in np.percentile(seconds, (10, 50, 90)))
    return {"n": len(seconds), "median": median, "p10": p10, "p90": p90}


def ask(index, queries: np.ndarray, expected: np.ndarray) -> dict:
    """The time of each query, and the share of the expected rows that was found."""
    index.search(queries[:1], TOP)
    answers = [timed(lambda query=query: index.search(query[None], TOP)[0][0]) for query in queries]
    shares = [len({*rows} & {*best}) / TOP for (_, rows), best in zip(answers, expected)]
    return {
        "query_ms": milliseconds([seconds for seconds, _ in answers]),
        "recall_at_10": round(float(np.mean(shares)), 4),
        "first_is_right": round(float(np.mean([a[1][0] == b[0] for a, b in zip(answers, expected)])), 4),
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--vectors", type=int, default=100_000, help="how many (default 100,000)")
    flags.add_argument("--dimension", type=int, default=2048, help="of each (default 2,048)")
    flags.add_argument("--builds", type=int, default=3, help="times that the index is built (default 3)")
    flags.add_argument("--record", type=Path, default=RECORDS / "search_index.json")
    own = flags.parse_args()

    import faiss

    from src.retrieval.vectors import VectorIndex

    rng = np.random.default_rng(0)
    vectors = np.empty((own.vectors, own.dimension), np.float32)
    for start in range(0, own.vectors, BLOCK):
        block = vectors[start : start + BLOCK]
        block[:] = unit(rng.standard_normal(block.shape, np.float32))
    kinds = {"random": unit(rng.standard_normal((QUERIES, own.dimension), np.float32))}
    noise = unit(rng.standard_normal((QUERIES, own.dimension), np.float32))
    kinds["noisy_copies"] = unit(vectors[rng.choice(own.vectors, QUERIES, replace=False)] + noise)
    expected = {name: np.argsort(-(queries @ vectors.T))[:, :TOP] for name, queries in kinds.items()}
    scan = [scan_seconds(vectors, query) for query in noise[:50]]

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "vectors.npy", vectors.astype(np.float16))
        del vectors
        stored = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        codes, seconds = Path(folder) / "codes.faiss", []

        def build() -> VectorIndex:
            index = VectorIndex.build(stored)
            index.save(codes)
            return index

        for _ in range(own.builds):
            took, index = timed(build)
            seconds.append(took)
        size = codes.stat().st_size if index.kind != "exact" else 0
        results = {name: ask(index, queries, expected[name]) for name, queries in kinds.items()}

    met = {
        "build_seconds": spread(seconds)["median"] < BARS["build_seconds"],
        "query_ms": all(result["query_ms"]["median"] < BARS["query_ms"] for result in results.values()),
        "recall_at_10": all(result["recall_at_10"] >= BARS["recall_at_10"] for result in results.values()),
    }
    record = write_record(
        own.record,
        question=f"search in {own.vectors:,} random unit vectors of {own.dimension:,} dimensions, "
        "one query at a time",
        command="python -m benchmarks.search_index",
        versions={"faiss": faiss.__version__},
        vectors=own.vectors,
        dimension=own.dimension,
        kind=index.kind,
        bytes_a_vector={"codes": round(size / own.vectors, 1), "stored": 2 * own.dimension},
        build_seconds=spread(seconds, 1),
        **results,
        exact_scan_float32_ms=milliseconds(scan),
        bars=BARS,
        bars_met=met,
    )
    print(f"{index.kind}: built in {record['build_seconds']['median']} s; exact {milliseconds(scan)} ms")
    for name, result in results.items():
        print(f"{name}: {result['query_ms']} ms, recall@10 {result['recall_at_10']}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
