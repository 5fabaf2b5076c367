import hashlib

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from src.data.prepare.shapes import CHUNK, CLASS_NAMES, DISTANCES, draw_shapes


def outline(name, points):
    """The signed distance of a shape at points (u, v) of its own frame; negative inside."""
    u, v = np.array(points, np.float32).T
    return DISTANCES[name](u, v)


def test_the_same_seed_gives_the_same_bytes_everywhere():
    images, labels = draw_shapes(0, "train", 40)
    assert images.shape == (40, 3, 32, 32) and images.dtype == np.uint8 and labels.dtype == np.int32
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == (
        "c94ca646cd9d6b6121146eef4373fa94a817ac818255be40c24a00cde9e4f0d7"
    )


def test_a_smaller_count_is_the_beginning_of_a_larger_one():
    images, labels = draw_shapes(3, "test", CHUNK + 30)
    for count in (1, CHUNK, CHUNK + 1):
        fewer_images, fewer_labels = draw_shapes(3, "test", count)
        np.testing.assert_array_equal(fewer_images, images[:count])
        np.testing.assert_array_equal(fewer_labels, labels[:count])


def test_seeds_splits_and_chunks_differ():
    parts = [
        draw_shapes(*arguments)[0] for arguments in ((0, "train", 20), (0, "test", 20), (1, "train", 20))
    ]
    parts.append(draw_shapes(0, "train", CHUNK + 20)[0][CHUNK:])
    images = np.concatenate(parts).reshape(80, -1)
    assert len(np.unique(images, axis=0)) == 80


def test_classes_are_balanced_and_named():
    _, labels = draw_shapes(0, "train", 2 * CHUNK)
    assert np.bincount(labels).tolist() == [2 * CHUNK // 10] * 10
    assert tuple(DISTANCES) == CLASS_NAMES and len(set(CLASS_NAMES)) == 10


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("circle", [(0, 0), (0.9, 0), (0.6, 0.6)], [(1, 0), (0.7, 0.7)]),
        ("ring", [(0.75, 0), (0, -0.9)], [(0, 0), (0.4, 0), (1.1, 0)]),
        ("square", [(0, 0), (0.8, 0.8)], [(0.9, 0), (0, -0.9)]),
        ("triangle", [(0, 0), (0, -1.1), (0.9, 0.5)], [(0, 0.7), (0.6, -0.6), (0, -1.3)]),
        ("star", [(0, 0), (0, 1.1), (1.05, 0.34), (-0.64, -0.88)], [(0, -0.6), (0.64, 0.88), (0, 1.3)]),
        ("cross", [(0, 0), (0.9, 0), (0, -0.9)], [(0.5, 0.5), (1.1, 0)]),
        ("crescent", [(-0.7, 0), (0, 0.9)], [(0, 0), (0.5, 0), (-1.1, 0)]),
        ("heart", [(0, 0), (0.5, -0.7), (-0.5, -0.7), (0, 0.7)], [(0, -0.85), (0.7, 0.6), (-0.7, 0.6)]),
        ("hourglass", [(0, 0), (0.6, 0.9), (-0.6, -0.9)], [(0.6, 0), (-0.6, 0), (0, 1)]),
        ("bars", [(0, 0.6), (0.9, -0.6)], [(0, 0), (0, 1), (1.1, 0.6)]),
    ],
)
def test_outlines(name, inside, outside):
    assert (outline(name, inside) < 0).all()
    assert (outline(name, outside) > 0).all()


def test_a_linear_classifier_does_not_solve_it():
    (images, labels), (test_images, test_labels) = draw_shapes(0, "train", 2000), draw_shapes(0, "test", 1000)
    pixels, test_pixels = (x.reshape(len(x), -1) / 255 - 0.5 for x in (images, test_images))
    model = RidgeClassifier(alpha=1000).fit(pixels.astype(np.float32), labels)
    assert 0.15 < model.score(test_pixels.astype(np.float32), test_labels) < 0.6
