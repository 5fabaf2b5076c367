# SPDX-License-Identifier: Apache-2.0
"""Sums over ranks lose nothing, although what is exchanged is float32; weights come over as they are."""

import tracemalloc

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.parallel import collective
from src.parallel.collective import (
    broadcast_from_first,
    check_equal_over_ranks,
    sum_over_ranks,
    union_over_ranks,
)


class Answer:
    def __init__(self, array):
        self._array = array

    def asnumpy(self):
        return self._array


def one_by_one(answers):
    """Stands for the ranks, which give these arrays in turn."""
    rest = iter(answers)
    return lambda kind: lambda _: Answer(next(rest).copy())


def exchange(monkeypatch, vectors):
    """What every rank gets, with the ranks' messages brought together in this process: float32, as sent."""
    asked = []

    def cell(kind):
        def note(tensor):
            assert tensor.dtype == ms.float32
            asked.append((kind, tensor.asnumpy().copy()))
            return Answer(asked[-1][1].copy())

        return note

    monkeypatch.setattr(collective, "_cell", cell)
    sent = []
    for vector in vectors:
        asked.clear()
        sum_over_ranks(vector.copy(), size=len(vectors))
        sent.append(list(asked))
    answers = []
    for parts in zip(*sent, strict=True):
        arrays = [array for _, array in parts]
        reduces = parts[0][0] is collective._Sum
        answers.append(np.sum(arrays, axis=0, dtype=np.float32) if reduces else np.concatenate(arrays))
    found = []
    for vector in vectors:
        monkeypatch.setattr(collective, "_cell", one_by_one(answers))
        found.append(sum_over_ranks(vector.copy(), size=len(vectors)))
    return found


def test_one_rank_gets_its_own_vector_back():
    vector = np.array([1.0, np.pi, 2.0**53 - 1])
    np.testing.assert_array_equal(sum_over_ranks(vector, size=1), vector)


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_integers_are_added_exactly(monkeypatch, size, chunk, kind):
    monkeypatch.setattr(collective, "CHUNK", chunk)
    rng = np.random.default_rng(size)
    vectors = [rng.integers(-(2**48) + 1, 2**48, 100) for _ in range(size)]
    vectors[0][:4] = [2**24 + 1, 2**48 - 1, 0, 1]
    expected = np.sum(vectors, axis=0)
    assert np.any(expected != np.sum(vectors, axis=0, dtype=np.float32)), "float32 would not do"
    for found in exchange(monkeypatch, [vector.astype(kind) for vector in vectors]):
        assert found.dtype == kind
        np.testing.assert_array_equal(found.astype(np.int64), expected)


def test_sums_of_a_thousand_ranks_stay_exact(monkeypatch):
    """4,096 ranks with the largest digits."""
    monkeypatch.setattr(collective, "_cell", lambda kind: lambda x: Answer(x.asnumpy() * np.float32(4096)))
    largest = np.array([2**48 - 1, -(2**48) + 1, -1, 2**36 - 1])
    np.testing.assert_array_equal(sum_over_ranks(largest, size=4096), largest * 4096)
    for vector, size in ((largest, 4097), (largest + 1, 4096)):
        with pytest.raises(ValueError, match="no exact sum"):
            sum_over_ranks(vector, size=size)


def peak(function):
    """The most bytes of numpy arrays that a call has at a time."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_for_a_sum_of_counts_does_not_grow_with_the_ranks(monkeypatch):
    """Gathered, the confusion matrix of 300 classes would have 64 times 8 bytes a cell."""
    monkeypatch.setattr(collective, "CHUNK", 10_000)
    monkeypatch.setattr(collective, "_cell", lambda kind: lambda x: Answer(x.asnumpy() * np.float32(64)))
    counts = np.arange(300**2)
    assert peak(lambda: sum_over_ranks(counts, size=64)) < 50 * counts.size


def test_memory_for_the_first_broadcast_does_not_grow_with_the_network(monkeypatch):
    """A copy of all state would have 4 bytes a number."""
    monkeypatch.setattr(collective, "CHUNK", 10_000)
    monkeypatch.setattr(collective, "_cell", lambda kind: lambda x: Answer(x.asnumpy()))
    many = parameters(*np.zeros((100, 9_000), np.float32))
    assert peak(lambda: broadcast_from_first(many, size=2)) < 20 * 9_000 + 10 * 10_000


def test_other_numbers_keep_fourteen_digits(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=50) * 10.0 ** rng.integers(-6, 12, 50) for _ in range(2)]
    for found in exchange(monkeypatch, vectors):
        np.testing.assert_allclose(found, vectors[0] + vectors[1], rtol=0, atol=1e-14 * 1e12)
        magnitude = np.abs(vectors[0]) + np.abs(vectors[1])
        assert (np.abs(found - (vectors[0] + vectors[1])) <= 2**-47 * magnitude).all()


def test_a_sum_that_is_not_a_number_stays_one(monkeypatch):
    for found in exchange(monkeypatch, [np.array([np.nan, 1.0]), np.array([2.0, 3.0])]):
        assert np.isnan(found[0])
        assert found[1] == 4.0


def parameters(*arrays):
    return [ms.Parameter(ms.Tensor(array), name=f"p{i}") for i, array in enumerate(arrays)]


def test_ranks_take_the_bits_of_the_first(monkeypatch):
    """Small parameters share messages of one length, a larger one has several."""
    monkeypatch.setattr(collective, "CHUNK", 4)
    first = [
        np.array([[-0.0, np.nan, 1e-40]], np.float32), np.array(7, np.int32),
        np.arange(6, dtype=np.float32), np.ones(2, np.int32),
    ]  # fmt: skip
    sent = []
    monkeypatch.setattr(
        collective, "_cell", lambda kind: lambda x: Answer(sent.append(x.asnumpy().copy()) or sent[-1])
    )
    broadcast_from_first(parameters(*first), size=2)
    assert [len(chunk) for chunk in sent] == [4, 4, 4, 4]
    monkeypatch.setattr(collective, "_cell", one_by_one(sent))
    other = parameters(*(np.zeros_like(array) for array in first))
    broadcast_from_first(other, size=2)
    for parameter, array in zip(other, first):
        assert parameter.asnumpy().dtype == array.dtype
        assert parameter.asnumpy().tobytes() == array.tobytes()


def test_the_first_parameter_that_differs_is_named(monkeypatch):
    mine = parameters(np.zeros(3, np.float32), np.ones(2, np.float32), np.ones(2, np.float32))
    check_equal_over_ranks(mine, step=5, size=1)

    def gather(kind):
        def others(x):
            table = np.concatenate([x.asnumpy()] * 3)
            table[2, 1:] += 1  # rank 2 has other bits in two of them
            return Answer(table)

        return others

    monkeypatch.setattr(collective, "_cell", gather)
    with pytest.raises(UserError, match=r"p1 differs between rank 0 and rank 2 after step 5 \(2 of 3"):
        check_equal_over_ranks(mine, step=5, size=3)


def test_a_union_is_of_all_ranks_and_costs_little_where_there_is_nothing(monkeypatch):
    ranks, sent = [{3, 5}, set(), {5, 9}], []

    def sum_over_ranks(vector, *, size):
        sent.append(len(vector))
        if len(vector) == 1:
            return np.array([sum(map(len, ranks))])
        total = np.zeros(10, np.int64)
        for numbers in ranks:
            total[list(numbers)] += 1
        return total

    monkeypatch.setattr(collective, "sum_over_ranks", sum_over_ranks)
    for numbers in ranks:
        assert union_over_ranks(numbers, below=10, size=3) == {3, 5, 9}
    sent.clear()
    ranks = [set()] * 3
    assert union_over_ranks(set(), below=10, size=3) == set() and sent == [1]
    assert union_over_ranks({4}, below=10, size=1) == {4} and sent == [1]
