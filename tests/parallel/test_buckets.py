# SPDX-License-Identifier: Apache-2.0
"""Buckets hold every tensor once, the last ones first, and give back means in their places."""

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.parallel.buckets import AverageOverCards, plan_buckets


class TimesCards(nn.Cell):
    """Stands for the sum over cards that all have the same tensor."""

    def __init__(self, cards):
        super().__init__()
        self.cards = cards

    def construct(self, x):
        return x * self.cards


def test_one_card_gets_its_tensors_back(graph_mode):
    average = AverageOverCards([(2, 3), ()], bucket_bytes=8, cards=1)
    x = ms.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    first, second = average((x, ms.Tensor(2.0, ms.float32)))
    np.testing.assert_array_equal(first.asnumpy(), x.asnumpy())
    assert second.asnumpy() == 2
    assert average.bucket_sizes == ()


@pytest.mark.parametrize("most", [1, 7, 12, 1000])
def test_every_tensor_is_in_one_bucket_from_the_last_to_the_first(most):
    sizes = [5, 1, 7, 3, 30, 2, 2]
    buckets = plan_buckets(sizes, most)
    assert [i for bucket in buckets for i in bucket] == [6, 5, 4, 3, 2, 1, 0]
    for bucket in buckets:
        assert len(bucket) == 1 or sum(sizes[i] for i in bucket) <= most
    for bucket, following in itertools.pairwise(buckets):
        assert sum(sizes[i] for i in bucket) + sizes[following[0]] > most, "there was room"


def test_a_deep_network_compiles(graph_mode, monkeypatch):
    """As many tensors as ResNet-50 has: a loop in the graph would nest beyond a depth of 1,000 calls."""
    monkeypatch.setattr("src.parallel.buckets.ops.AllReduce", lambda _: TimesCards(8))
    average = AverageOverCards([(2,)] * 160, bucket_bytes=2000, cards=8)
    means = average(tuple(ms.Tensor(np.full(2, n, np.float32)) for n in range(160)))
    np.testing.assert_array_equal([mean.asnumpy()[0] for mean in means], np.arange(160))


@pytest.mark.parametrize("bucket_bytes", [4, 48, 1 << 20])
def test_means_come_back_in_their_shapes_and_places(graph_mode, monkeypatch, bucket_bytes):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 2), (), (5,), (2, 2, 2)]]
    monkeypatch.setattr("src.parallel.buckets.ops.AllReduce", lambda _: TimesCards(3))
    average = AverageOverCards([a.shape for a in arrays], bucket_bytes=bucket_bytes, cards=3)
    means = average(tuple(map(ms.Tensor, arrays)))
    assert sum(average.bucket_sizes) == 4 * sum(a.size for a in arrays)
    for mean, array in zip(means, arrays, strict=True):
        assert mean.shape == array.shape
        np.testing.assert_allclose(mean.asnumpy(), array, rtol=3e-7)
