# SPDX-License-Identifier: Apache-2.0
"""How fast is the search in 100,000 pictures: opening the index, one query, and many at once?

    python -m benchmarks.search_index [--vectors 100000] [--dimension 2048] [--record FILE]

Independent random unit vectors stand for the embeddings, since what they are does not matter: every query is
compared with all of them. `write` is the book-keeping of a build without any embedding, `open` reads and
checks all of the index. The similarities are compared with those in float64 of the vectors before they were
rounded to float16. Writes benchmarks/records/search_index.json. The bars: opened in 10 s, a query in half a
second (median), similarities right to 1e-3.
"""

import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import RECORDS, end_with, parser, spread, write_record

QUERIES, TOP, BLOCK = 32, 10, 256
BARS = {"open_seconds": 10, "query_ms": 500, "error": 1e-3}


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(run) -> tuple[float, object]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--vectors", type=int, default=100_000, help="how many (default 100,000)")
    flags.add_argument("--dimension", type=int, default=2048, help="of each (default 2,048)")
    flags.add_argument("--record", type=Path, default=RECORDS / "search_index.json")
    own = flags.parse_args()

    from src.retrieval.index import INDEX, PictureIndex
    from src.retrieval.store import Picture, Store

    rng = np.random.default_rng(0)
    queries = unit(rng, QUERIES, own.dimension)
    best = np.full(QUERIES, -1.0)

    def write(folder: str) -> None:
        with Store(Path(folder) / INDEX, new={}) as store:
            for start in range(0, own.vectors, BLOCK):
                vectors = unit(rng, min(BLOCK, own.vectors - start), own.dimension)
                best[:] = np.maximum(best, (np.float64(queries) @ np.float64(vectors).T).max(axis=1))
                rows = (
                    Picture(b"%d" % (start + row), 1, 1, rng.bytes(32), b"", vector.tobytes())
                    for row, vector in enumerate(vectors.astype(np.float16))
                )
                store.write(rows, [], {})

    with tempfile.TemporaryDirectory() as folder:
        written, _ = timed(lambda: write(folder))
        size = os.path.getsize(Path(folder) / INDEX)
        opened, index = timed(lambda: PictureIndex.open(folder))
    index = dataclasses.replace(index, files=[__file__] * own.vectors)  # all of them are there
    answers = [timed(lambda query=query: index.search(query[None], TOP)[0]) for query in queries]
    together, _ = timed(lambda: index.search(queries, TOP))
    query_ms = spread([1e3 * seconds for seconds, _ in answers], 1)
    error = float(np.abs([found[0][1] for _, found in answers] - best).max())
    met = {
        "open_seconds": opened < BARS["open_seconds"],
        "query_ms": query_ms["median"] < BARS["query_ms"],
        "error": error < BARS["error"],
    }
    write_record(
        own.record,
        question=f"search in an index of {own.vectors:,} pictures with {own.dimension:,} numbers each",
        command="python -m benchmarks.search_index",
        vectors=own.vectors,
        dimension=own.dimension,
        bytes_a_picture=round(size / own.vectors),
        write_seconds=round(written, 1),
        open_seconds=round(opened, 2),
        query_ms=query_ms,
        queries_together={"queries": QUERIES, "ms": round(1e3 * together, 1)},
        error=error,
        bars=BARS,
        bars_met=met,
    )
    print(f"opened in {opened:.2f} s, a query {query_ms} ms, {QUERIES} together {1e3 * together:.0f} ms")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    end_with(main)
