"""Sums over ranks lose nothing, although what is exchanged is float32; weights come over as they are."""

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.parallel import collective
from src.parallel.collective import broadcast_from_first, check_equal_over_ranks, sum_over_ranks


def exchange(monkeypatch, vectors):
    """What every rank gets, with the exchange of float32 arrays replaced by one in this process."""
    sent = []

    class Recorded:
        def __init__(self, array):
            self.array = array

        def asnumpy(self):
            return self.array

    def note(tensor):
        array = tensor.asnumpy()
        assert array.dtype == np.float32
        sent.append(array)
        return Recorded(array)

    monkeypatch.setattr(collective, "_cell", lambda kind: note)
    for vector in vectors:
        sum_over_ranks(vector, size=len(vectors))
    everything = np.concatenate(sent)
    monkeypatch.setattr(collective, "_cell", lambda kind: lambda _: Recorded(everything))
    return [sum_over_ranks(vector, size=len(vectors)) for vector in vectors]


def test_one_rank_gets_its_own_vector_back():
    vector = np.array([1.0, np.pi, 2.0**53 - 1])
    np.testing.assert_array_equal(sum_over_ranks(vector, size=1), vector)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_integers_are_added_exactly(monkeypatch, size):
    rng = np.random.default_rng(size)
    vectors = [rng.integers(0, 2**48, 100).astype(np.float64) for _ in range(size)]
    vectors[0][:4] = [2**24 + 1, 2**48 - 1, 0, 1]
    expected = np.sum([vector.astype(np.int64) for vector in vectors], axis=0)
    assert np.any(expected != np.sum(vectors, axis=0, dtype=np.float32)), "float32 would not do"
    for found in exchange(monkeypatch, vectors):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found.astype(np.int64), expected)


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


class Answer:
    def __init__(self, array):
        self._array = array

    def asnumpy(self):
        return self._array


def parameters(*arrays):
    return [ms.Parameter(ms.Tensor(array), name=f"p{i}") for i, array in enumerate(arrays)]


def test_ranks_take_the_bits_of_the_first(monkeypatch):
    monkeypatch.setattr(collective, "CHUNK", 4)
    first = [np.array([[-0.0, np.nan, 1e-40]], np.float32), np.array(7, np.int32), np.ones(6, np.float32)]
    sent = []
    monkeypatch.setattr(
        collective, "_cell", lambda kind: lambda x: sent.append(x.asnumpy().copy()) or Answer(sent[-1])
    )
    broadcast_from_first(parameters(*first), size=2)
    assert [len(chunk) for chunk in sent] == [4, 4, 4]
    chunks = iter(sent)
    monkeypatch.setattr(collective, "_cell", lambda kind: lambda x: Answer(next(chunks)))
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
