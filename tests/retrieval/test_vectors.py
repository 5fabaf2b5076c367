"""Exact search against numpy, and codes and cells against exact search."""

import numpy as np
import pytest

from src.common.errors import UserError
from src.retrieval.vectors import VectorIndex


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def oracle(vectors, queries, top):
    similarities = np.float64(queries) @ np.float64(vectors).T
    return np.argsort(-np.round(similarities, 6), axis=1, kind="stable")[:, :top], similarities


def recall(found, expected):
    return np.mean([len({*rows} & {*best}) / len(best) for (rows, _), best in zip(found, expected)])


def random_vectors(rng, dimension=128):
    return unit(rng.standard_normal((3000, dimension)))


def clustered_vectors(rng, dimension=128):
    centres = unit(rng.standard_normal((60, dimension)))
    return unit(centres[rng.integers(0, 60, 3000)] + 0.05 * rng.standard_normal((3000, dimension)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_is_the_oracle_in_order_and_value(dtype):
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((300, 33))).astype(dtype)
    vectors[[7, 250]] = vectors[100]  # equals come in the order of their rows
    queries = np.concatenate([unit(rng.standard_normal((5, 33))), vectors[100:101].astype(np.float32)])
    index = VectorIndex.build(vectors)
    assert (index.kind, len(index)) == ("exact", 300)
    expected, similarities = oracle(vectors, queries, 20)
    found = index.search(queries, 20)
    for number, (rows, values) in enumerate(found):
        np.testing.assert_array_equal(rows, expected[number])
        np.testing.assert_allclose(values, similarities[number, rows], atol=2e-6)
    assert list(found[-1][0][:3]) == [7, 100, 250]
    assert [len(rows) for rows, _ in index.search(queries, 1000)] == [300] * 6


@pytest.mark.parametrize("make", [random_vectors, clustered_vectors])
@pytest.mark.parametrize("dimension", [128, 65])
def test_compact_finds_what_exact_finds(make, dimension):
    rng = np.random.default_rng(1)
    vectors = make(rng, dimension).astype(np.float16)
    queries = np.concatenate([unit(rng.standard_normal((40, dimension))), np.float32(vectors[:40])])
    expected, similarities = oracle(vectors, queries, 10)
    index = VectorIndex.build(vectors, cells=1)
    assert index.kind == "compact"
    found = index.search(queries, 10)
    assert recall(found, expected) >= 0.99
    for number, (rows, values) in enumerate(found):  # the exact vectors give order and value
        np.testing.assert_allclose(values, similarities[number, rows], atol=2e-6)
        assert (np.diff(values) <= 0).all()


def test_codes_of_many_dimensions_do_not_overflow():
    """Where all components are alike, and a vector is like the query, sums over the pairs are largest."""
    rng = np.random.default_rng(5)
    vectors = unit(np.sign(rng.standard_normal((1500, 2048))) + 0.01 * rng.standard_normal((1500, 2048)))
    index = VectorIndex.build(vectors, cells=1)
    queries = unit(vectors[:20] + 0.2 * unit(rng.standard_normal((20, 2048))))
    assert [rows[0] for rows, _ in index.search(queries, 10)] == list(range(20))
    assert recall(index.search(queries, 10), oracle(vectors, queries, 10)[0]) >= 0.99


def test_the_number_of_vectors_chooses_the_kind(monkeypatch):
    monkeypatch.setattr("src.retrieval.vectors.EXACT_UP_TO", 100)
    monkeypatch.setattr("src.retrieval.vectors.CELLS_ABOVE", 400)
    vectors = random_vectors(np.random.default_rng(0), 16)
    kinds = [VectorIndex.build(vectors[:n]).kind for n in (100, 101, 400, 401)]
    assert kinds == ["exact", "compact", "compact", "cells"]


def test_cells_scan_as_many_as_they_are_told():
    rng = np.random.default_rng(2)
    vectors = clustered_vectors(rng)
    queries = unit(vectors[:80] + 0.02 * rng.standard_normal((80, 128)))
    expected, _ = oracle(vectors, queries, 10)
    index = VectorIndex.build(vectors, cells=50)
    assert index.kind == "cells"
    assert recall(index.search(queries, 10, probes=8), expected) >= 0.99
    # Random queries have no cell of their own: few probes miss, all find. Too few vectors are no padding.
    queries = unit(rng.standard_normal((80, 128)))
    expected, _ = oracle(vectors, queries, 10)
    few, everything = (index.search(queries, 10, probes=probes) for probes in (1, 1000))
    assert recall(few, expected) < 0.9 <= 0.99 <= recall(everything, expected)
    short = index.search(queries[:1], 3000, probes=1)[0]
    assert 0 < len(short[0]) == len({*short[0]}) < 3000 and short[0].min() >= 0


@pytest.mark.parametrize(("make", "few", "many"), [(clustered_vectors, 1, 12), (random_vectors, 25, 50)])
def test_the_number_of_probes_follows_the_vectors(make, few, many, monkeypatch, tmp_path):
    monkeypatch.setattr("src.retrieval.vectors.LEAST_PROBES", 1)
    rng = np.random.default_rng(7)
    vectors = make(rng)
    index = VectorIndex.build(vectors, cells=50)
    assert few <= index.probes <= many
    queries = unit(vectors[:80] + 0.02 * rng.standard_normal((80, 128)))
    assert recall(index.search(queries, 10), oracle(vectors, queries, 10)[0]) >= 0.9
    index.search(queries, 10, probes=2)  # an answer with others changes nothing
    index.save(tmp_path / "codes.faiss")
    assert VectorIndex.load(vectors, tmp_path / "codes.faiss").probes == index.probes
    monkeypatch.setattr("src.retrieval.vectors.LEAST_PROBES", 30)
    assert VectorIndex.build(vectors, cells=50).probes == max(30, index.probes)
    assert VectorIndex.build(vectors, cells=20).probes <= 20


@pytest.mark.parametrize("cells", [None, 1, 20])
def test_saved_and_loaded_it_answers_the_same(tmp_path, cells):
    vectors = random_vectors(np.random.default_rng(3), 31)
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    built = VectorIndex.build(mapped, cells=cells)
    path = tmp_path / "codes.faiss"
    built.save(path)
    assert path.exists() == (built.kind != "exact")
    loaded = VectorIndex.load(mapped, path if path.exists() else None)
    assert loaded.kind == built.kind
    answers = (index.search(vectors[:9], 5) for index in (built, loaded))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_input_is_one_line(tmp_path):
    vectors = random_vectors(np.random.default_rng(4), 16)
    with pytest.raises(UserError, match="cells: 30 vectors are too few, 40 are needed"):
        VectorIndex.build(vectors[:30], cells=40)
    with pytest.raises(UserError, match="15 vectors are too few, 16 are needed"):
        VectorIndex.build(vectors[:15], cells=1)
    path = tmp_path / "codes.faiss"
    VectorIndex.build(vectors, cells=1).save(path)
    for other in (vectors[:-1], vectors[:, :-2]):
        with pytest.raises(UserError, match="belongs to other vectors; build the index again"):
            VectorIndex.load(other, path)
    path.write_bytes(path.read_bytes()[:1000])
    for damaged in (path, tmp_path / "none.faiss"):
        with pytest.raises(UserError, match=r"faiss is no whole index of codes; build the index again"):
            VectorIndex.load(vectors, damaged)
    with pytest.raises(UserError, match="cannot write"):
        VectorIndex.build(vectors, cells=1).save(path / "below" / "codes.faiss")
