# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from src.data.prepare.shapes import _PARTS, CLASS_NAMES, draw_shapes


def test_the_same_seed_gives_the_same_images_and_a_smaller_count_their_beginning():
    many = draw_shapes(3, "test", 40)
    assert many.images.shape == (40, 3, 32, 32) and many.images.dtype == np.uint8
    assert many.labels.dtype == np.int32 and many.class_names == CLASS_NAMES
    for count in (1, 40):
        fewer = draw_shapes(3, "test", count)
        np.testing.assert_array_equal(fewer.images, many.images[:count])
        np.testing.assert_array_equal(fewer.labels, many.labels[:count])


def test_seeds_splits_and_images_differ():
    parts = [draw_shapes(*key, 20).images for key in ((0, "train"), (0, "test"), (1, "train"))]
    assert len(np.unique(np.concatenate(parts).reshape(60, -1), axis=0)) == 60


def test_classes_are_balanced_and_named():
    assert np.bincount(draw_shapes(0, "train", 50).labels).tolist() == [5] * 10
    assert len(set(CLASS_NAMES)) == 10


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("circle", [(0, 0), (0.9, 0), (0.6, 0.6)], [(1, 0), (0.7, 0.7)]),
        ("ring", [(0.75, 0), (0, -0.9)], [(0, 0), (0.4, 0), (1.1, 0)]),
        ("square", [(0, 0), (0.8, 0.8)], [(0.9, 0), (0, -0.9)]),
        ("triangle", [(0, 0), (0, -1.1), (0.9, 0.5)], [(0, 0.7), (0.6, -0.6), (0, -1.3)]),
        ("star", [(0, 0), (0, -1), (0.95, -0.31), (-0.6, 0.8)], [(0, 0.6), (0.64, -0.88), (0, -1.3)]),
        ("cross", [(0, 0), (0.9, 0), (0, -0.9)], [(0.5, 0.5), (1.1, 0)]),
        ("crescent", [(-0.7, 0), (0, 0.9)], [(0, 0), (0.5, 0), (-1.1, 0)]),
        ("heart", [(0, 0), (0.5, -0.7), (-0.5, -0.7), (0, 0.7)], [(0, -0.9), (0.7, 0.6), (-0.7, 0.6)]),
        ("hourglass", [(0, 0), (0.5, 0.9), (-0.5, -0.9)], [(0.6, 0), (-0.6, 0), (0, 1.1)]),
        ("bars", [(0, 0.6), (0.9, -0.6)], [(0, 0), (0, 1), (1.1, 0.6)]),
    ],
)
def test_outlines(name, inside, outside):
    """A point is of a shape as the last part says that it is in."""

    def holds(point):
        found = 0
        for points, value in _PARTS[name]:
            if cv2.pointPolygonTest(points.astype(np.float32), point, False) >= 0:
                found = value
        return found

    assert all(map(holds, inside)) and not any(map(holds, outside))


def test_a_linear_classifier_does_not_solve_it():
    train, test = draw_shapes(0, "train", 2000), draw_shapes(0, "test", 1000)
    pixels, test_pixels = (part.images.reshape(len(part), -1) / 255 - 0.5 for part in (train, test))
    model = RidgeClassifier(alpha=1000).fit(pixels.astype(np.float32), train.labels)
    assert 0.15 < model.score(test_pixels.astype(np.float32), test.labels) < 0.6
