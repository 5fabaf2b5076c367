# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from src.data.augment.erasing import Erasing

MEAN, STD = (124.4, 116.5, 90.0), (20.0, 40.0, 200.0)


def erasing(probability=1.0, noise=False):
    return Erasing(probability=probability, noise=noise, mean=MEAN, std=STD)


def loop_box(side, uniform):
    """torchvision's documented algorithm with uniform numbers given; None where ten tries fail."""
    for k in range(10):
        area = side * side * (0.02 + uniform[k] * (1 / 3 - 0.02))
        ratio = math.exp(math.log(0.3) + uniform[10 + k] * (math.log(3.3) - math.log(0.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= height < side and 1 <= width < side:
            rooms = side - height + 1, side - width + 1
            return *(math.floor(u * room) for u, room in zip(uniform[20:], rooms)), height, width
    return None


@pytest.mark.parametrize("side", [2, 3, 8, 224])
def test_boxes_are_torchvisions(side):
    uniform = np.random.default_rng(1).random((22, 300))
    boxes = erasing().draw(np.random.default_rng(1), 300, side).T
    for box, numbers in zip(boxes, uniform.T, strict=True):
        expected = loop_box(side, numbers)
        if expected is None:
            assert box[2] == box[3] == 0
        else:
            assert tuple(box) == expected
            assert min(box) >= 0 and box[0] + box[2] <= side and box[1] + box[3] <= side
    assert (boxes[:, 2] > 0).mean() > 0.5


def test_share_and_place_of_the_boxes():
    boxes = erasing(0.25).draw(np.random.default_rng(0), 20_000, 500)
    erased = boxes[:, boxes[2] > 0]
    assert 4700 < erased.shape[1] < 5300
    top, left, height, width = erased
    share = height * width / 500**2
    assert 0.019 < share.min() < 0.022 and 0.32 < share.max() < 0.336
    assert np.histogram(share, 5, (0.02, 1 / 3))[0].min() > 800
    for place, room in ((top, 500 - height), (left, 500 - width)):
        assert place.min() == 0 and (place == room).any() and abs((place / room).mean() - 0.5) < 0.02


def test_nothing_is_erased_without_probability_or_from_a_single_pixel():
    assert not erasing(0.0).draw(np.random.default_rng(0), 500, 64)[2:].any()
    assert not erasing().draw(np.random.default_rng(0), 500, 1)[2:].any()


@pytest.mark.parametrize("noise", [False, True])
def test_the_box_alone_is_filled(noise):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image.setflags(write=False)
    result = erasing(noise=noise)(image, np.array([10, 20, 60, 70]), np.random.default_rng(7))
    hole = np.zeros(image.shape[:2], bool)
    hole[10:70, 20:90] = True
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[~hole], image[~hole])
    filled = result[hole].astype(float)
    if not noise:
        assert np.unique(filled, axis=0).tolist() == [[124, 116, 90]]
        return
    np.testing.assert_allclose(filled[:, :2].mean(0), MEAN[:2], atol=3)
    np.testing.assert_allclose(filled[:, :2].std(0), STD[:2], rtol=0.06)
    assert filled[:, 2].min() == 0 and filled[:, 2].max() == 255  # clipped, not wrapped round
    assert 0.25 < (filled[:, 2] == 0).mean() < 0.4
    assert np.abs(np.corrcoef(filled.T) - np.eye(3)).max() < 0.1
    again, other = (erasing(noise=True)(image, (10, 20, 60, 70), np.random.default_rng(k)) for k in (7, 8))
    np.testing.assert_array_equal(again, result)
    assert not np.array_equal(other, result)
