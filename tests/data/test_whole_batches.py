"""Whole pictures at their own aspect ratio: sizes, order, neighbours of equal shape, damage, threads."""

import numpy as np
import pytest

from src.data import resize as geometry
from src.data.decode import UnreadableImage
from src.data.whole_batches import WholePictureBatches, whole_batches
from tests.helpers.batches import pool_threads
from tests.helpers.pictures import Pictures, noise

# 20 pixels on the longer side: 20x10, 20x10, 10x20, 20x20, 20x20, 20x20, 1x20, 20x10
SHAPES = [(40, 20), (10, 5), (5, 10), (7, 7), (20, 20), (90, 91), (3, 900), (80, 40)]
SIZES = [(20, 10), (20, 10), (10, 20), (20, 20), (20, 20), (20, 20), (1, 20), (20, 10)]


def drawn(shapes):
    return Pictures([noise(*shape, seed) for seed, shape in enumerate(shapes)], class_names="abc")


def batches(source, **settings):
    return WholePictureBatches(source, **{"image_size": 20, "batch_size": 2, "workers": 3, **settings})


@pytest.mark.parametrize(("shape", "multiple", "expected"), [
    ((300, 400), 1, (168, 224)), ((400, 300), 1, (224, 168)), ((50, 100), 1, (112, 224)),
    ((1, 100000), 1, (1, 224)), ((300, 400), 32, (160, 224)), ((2, 900), 32, (32, 224)),
    ((5, 5), 32, (224, 224)), ((337, 224), 1, (224, 149)),
])  # fmt: skip
def test_the_longer_side_is_the_size_and_the_ratio_stays(shape, multiple, expected):
    image = np.zeros((*shape, 3), np.uint8)
    resized = geometry.resize_whole(image, 224, "bilinear", multiple=multiple)
    assert resized.shape == (*expected, 3) and resized.dtype == np.uint8


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_every_picture_once_in_order(size, batch_size):
    source, seen = drawn(SHAPES), 0
    for rank in range(size):
        for images, labels, valid in batches(source, batch_size=batch_size, rank=rank, size=size):
            assert images.dtype == np.uint8 and images.flags.c_contiguous
            assert labels.dtype == np.int32 and len(images) == len(labels) == valid <= batch_size
            for image, label in zip(images, labels, strict=True):
                assert image.shape[:2] == SIZES[seen]
                expected = geometry.resize_whole(source.pictures[seen], 20, "bilinear")
                np.testing.assert_array_equal(image, expected)
                assert label == source.labels[seen]
                seen += 1
    assert seen == len(SHAPES) and pool_threads() == []


def test_neighbours_of_equal_shape_share_a_batch():
    made = batches(drawn(SHAPES))
    assert [valid for *_, valid in made] == [2, 1, 2, 1, 1, 1]
    assert [valid for *_, valid in batches(drawn(SHAPES), batch_size=5)] == [2, 1, 3, 1, 1]
    assert not made.one_shape
    with pytest.raises(TypeError):
        len(made)


def test_normalised_on_the_host():
    source = drawn(SHAPES)
    mean, std = (10.0, 100.0, 200.0), (1.0, 2.0, 50.0)
    plain = batches(source, interpolation="bicubic")
    normalised = batches(source, interpolation="bicubic", normalise=(mean, std))
    for (images, *_), (planes, *_) in zip(plain, normalised, strict=True):
        assert planes.dtype == np.float32 and planes.flags.c_contiguous
        expected = ((images - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(planes, expected, rtol=1e-6, atol=1e-6)


def test_a_damaged_picture_is_an_error_or_is_skipped():
    source = drawn(SHAPES)
    source.damaged = {1, 4}
    with pytest.raises(UnreadableImage, match=r"^picture 1: damaged"):
        list(batches(source))
    skipped = []
    made = whole_batches(
        range(len(SHAPES)), source.read, long_side=20, batch_size=3,
        skip=lambda item, error: skipped.append((item, error.reason)),
    )  # fmt: skip
    assert [items for items, _ in made] == [[0], [2], [3, 5], [6], [7]]
    assert skipped == [(1, "damaged"), (4, "damaged")] and pool_threads() == []


def test_items_are_taken_as_they_are_needed():
    source, taken = drawn([(8, 8)] * 3), []

    def endless():
        while True:
            taken.append(len(taken))
            yield len(taken) % 3

    made = whole_batches(endless(), source.read, long_side=8, batch_size=4)
    for _ in range(5):
        next(made)
    assert len(taken) <= (5 + 3) * 4
    made.close()
    assert pool_threads() == []


def test_no_items_no_batches():
    assert list(whole_batches([], None, long_side=8, batch_size=4)) == []
