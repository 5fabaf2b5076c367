# SPDX-License-Identifier: Apache-2.0
"""Pictures to unit vectors: order, shapes, zeros, damage, and what is refused."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.common import heartbeat
from src.common.errors import UserError
from src.data.decode import UnreadableImage
from src.data.preparation import Preparation
from src.retrieval.embedding import Embedder

pytestmark = pytest.mark.usefixtures("graph_mode")

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)


class Means(nn.Cell):
    """The mean of each channel times `factor`; what it saw is kept, which a graph could not."""

    def __init__(self, factor=1.0, dtype=ms.float32):
        super().__init__()
        self.factor, self.dtype, self.seen, self.modes = factor, dtype, [], []

    def embed(self, x):
        self.seen.append(tuple(x.shape))
        self.modes.append(ms.get_context("mode"))
        return (x.mean(axis=(2, 3)) * self.factor).astype(self.dtype)


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def named(images):
    return [
        (f"picture {k}", lambda plan, image=image: plan(*image.shape[:2])(image))
        for k, image in enumerate(images)
    ]


def embedder(network, **settings):
    return Embedder.of_network(network, Preparation(16, MEAN, STD), **settings)


def test_batches_count_as_progress():
    """The launcher's watch would end a long embedding otherwise."""
    before = heartbeat._made
    list(embedder(Means(), batch_size=2).embed(named(pictures(*[(16, 16)] * 5))))
    assert heartbeat._made == before + 3


def test_unit_vectors_in_the_given_order():
    network = Means()
    images = pictures((8, 16), (40, 80), (16, 16), (5, 5), (80, 40), (7, 14))
    found = list(embedder(network, batch_size=2).embed(named(images)))
    assert [key for key, _ in found] == [f"picture {k}" for k in range(6)]
    assert network.seen == [(2, 3, 8, 16), (1, 3, 8, 16), (1, 3, 16, 8), (2, 3, 16, 16)]
    for (_, vector), image in zip(found, images, strict=True):
        whole = Preparation(16, MEAN, STD).plan_whole(*image.shape[:2])(image).astype(np.float64)
        expected = ((whole - MEAN) / STD).mean(axis=(0, 1))
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    assert set(network.modes) == {ms.PYNATIVE_MODE} and ms.get_context("mode") == ms.GRAPH_MODE


@pytest.mark.parametrize(("factor", "dtype"), [(100.0, ms.float16), (1e30, ms.float32), (1e-30, ms.float32)])
def test_lengths_that_overflow_in_their_own_type(factor, dtype):
    (_, vector), = embedder(Means(factor, dtype)).embed(named(pictures((9, 9))))  # fmt: skip
    assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_zeros_stay_zeros():
    (_, vector), = embedder(Means(0.0)).embed(named(pictures((9, 9))))  # fmt: skip
    assert vector.tolist() == [0, 0, 0]


def test_damaged_pictures():
    def broken(plan):
        raise UnreadableImage("b.jpg", "cut short")

    items = [*named(pictures((9, 9))), ("b", broken), *named(pictures((9, 9)))]
    with pytest.raises(UnreadableImage, match=r"^b\.jpg: cut short"):
        list(embedder(Means()).embed(items))
    skipped = []
    found = embedder(Means()).embed(items, skip=lambda key, error: skipped.append((key, error.reason)))
    assert len(list(found)) == 2 and skipped == [("b", "cut short")]


def test_what_is_no_number_names_the_picture():
    with pytest.raises(UserError, match=r"^picture 1: Means answers with NaN"):
        list(embedder(Means(float("nan"))).embed(named(pictures((9, 9), (9, 9)))[1:]))


def test_a_length_that_follows_the_shape_is_refused():
    class Flat(Means):
        def embed(self, x):
            return ops.reshape(x, (x.shape[0], -1))

    with pytest.raises(UserError, match=r"Flat gives 768 and 384 features"):
        list(embedder(Flat()).embed(named(pictures((9, 9), (4, 8)))))


@pytest.mark.parametrize("interpolation", ["tf_bilinear", "bicubic"])
def test_from_a_trained_network(interpolation):
    how = Preparation(32, MEAN, STD, interpolation=interpolation)
    network = Means()
    keys = SimpleNamespace(workers=3)
    recipe = SimpleNamespace(side_multiple=16, preparation=how, config=keys)
    trained = SimpleNamespace(network=network, recipe=recipe)
    (image,) = pictures((90, 40))
    (_, vector), = Embedder.from_trained(trained).embed(named([image]))  # fmt: skip
    assert network.seen == [(1, 3, 32, 16)] and Embedder.from_trained(trained).workers == 3
    whole = how.plan_whole(90, 40, multiple=16)(image)
    expected = ((whole.astype(np.float64) - MEAN) / STD).mean(axis=(0, 1))
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_pictures_of_a_chunk_share_calls_by_shape():
    network = Means()
    images = pictures(*[(16, 8), (8, 16), (16, 16)] * 20)
    found = list(embedder(network).embed(named(images)))
    assert [key for key, _ in found] == [f"picture {k}" for k in range(60)]
    assert network.seen == [(20, 3, 8, 16), (20, 3, 16, 8), (20, 3, 16, 16)]
