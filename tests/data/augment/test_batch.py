# SPDX-License-Identifier: Apache-2.0
"""Each operation on a batch against a loop over images and pixels."""

import numpy as np
import pytest

from src.data.augment import batch as augment

SIZE = 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def batch(rng):
    return rng.standard_normal((5, 3, SIZE, SIZE)).astype(np.float32)


def mirrored(position, size):
    """Index of a pixel outside of an image, reflected about the border pixel."""
    return -position if position < 0 else 2 * (size - 1) - position if position >= size else position


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_reflect_pad(rng, pad):
    images = rng.integers(0, 256, (2, 3, SIZE, SIZE), np.uint8)
    padded = augment.reflect_pad(images, pad)
    assert padded.shape == (2, 3, SIZE + 2 * pad, SIZE + 2 * pad) and padded.dtype == np.uint8
    for row in range(SIZE + 2 * pad):
        for column in range(SIZE + 2 * pad):
            source = images[:, :, mirrored(row - pad, SIZE), mirrored(column - pad, SIZE)]
            np.testing.assert_array_equal(padded[:, :, row, column], source)


def test_crop(rng):
    images = rng.integers(0, 256, (7, 3, 10, 10), np.uint8)
    indices = np.array([3, 0, 6, 3, 1])
    tops, lefts = np.array([0, 4, 2, 1, 4]), np.array([4, 0, 3, 1, 4])
    windows = augment.crop(images, indices, tops, lefts, SIZE)
    assert windows.flags.c_contiguous and windows.flags.owndata and windows.dtype == np.uint8
    for k, (index, top, left) in enumerate(zip(indices, tops, lefts, strict=True)):
        np.testing.assert_array_equal(windows[k], images[index, :, top : top + SIZE, left : left + SIZE])


def test_flip(batch):
    flips = np.array([True, False, True, True, False])
    flipped = augment.flip(batch.copy(), flips)
    for k, turned in enumerate(flips):
        np.testing.assert_array_equal(flipped[k], batch[k, :, :, ::-1] if turned else batch[k])


@pytest.mark.parametrize("reach", [0, 1, 2, SIZE])
def test_translate(batch, rng, reach):
    downs, rights = augment.draw_shifts(rng, len(batch), reach)
    downs[0], rights[0] = reach, -reach
    moved = augment.translate(batch, downs, rights)
    assert moved.shape == batch.shape and moved.flags.c_contiguous
    for k in range(len(batch)):
        for row in range(SIZE):
            for column in range(SIZE):
                y, x = row - downs[k], column - rights[k]
                source = batch[k, :, y, x] if 0 <= y < SIZE and 0 <= x < SIZE else 0
                np.testing.assert_array_equal(moved[k, :, row, column], source)


@pytest.mark.parametrize("size", [1, 3, SIZE])
def test_cutout(batch, rng, size):
    tops, lefts = augment.draw_corners(rng, len(batch), SIZE - size)
    cut = augment.cutout(batch.copy(), tops, lefts, size)
    for k in range(len(batch)):
        for row in range(SIZE):
            for column in range(SIZE):
                hole = tops[k] <= row < tops[k] + size and lefts[k] <= column < lefts[k] + size
                np.testing.assert_array_equal(cut[k, :, row, column], 0 if hole else batch[k, :, row, column])
    assert ((cut == 0).sum((1, 2, 3)) == 3 * size * size).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
def test_smooth_one_hot(smoothing):
    targets = augment.smooth_one_hot(np.array([2, 0, 3]), 4, smoothing)
    assert targets.dtype == np.float32
    for row, label in zip(targets, (2, 0, 3), strict=True):
        for k in range(4):
            assert row[k] == pytest.approx((1 - smoothing) * (k == label) + smoothing / 4, abs=1e-7)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def test_smoothed_targets_give_the_losses_of_cifar10_fast_and_airbench(rng):
    """The latter is PyTorch's: cross-entropy with (1 - a) one-hot + a / K."""
    logits, labels = rng.normal(size=(7, 10)), rng.integers(10, size=7)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    own = -log_p[np.arange(7), labels]
    for a in (0.09, 0.2):
        found = -(augment.smooth_one_hot(labels, 10, a).astype(np.float64) * log_p).sum(axis=1)
        np.testing.assert_allclose(found, (1 - a) * own + a * -log_p.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found, (1 - a) * own + a / 10 * -log_p.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("weights", [[0.3] * 5, [0.0, 0.3, 1.0, 0.5, 0.9]])
def test_mixup(rng, weights):
    partners, targets = np.array([4, 1, 0, 2, 3]), rng.random((5, 4)).astype(np.float32)
    mixed = augment.mixup(targets, partners, np.array(weights, np.float32))
    assert mixed.dtype == np.float32
    for k, (partner, weight) in enumerate(zip(partners, weights, strict=True)):
        expected = weight * targets[k].astype(np.float64) + (1 - weight) * targets[partner]
        np.testing.assert_allclose(mixed[k], expected, atol=1e-6)


@pytest.mark.parametrize("repetitions", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 13, 24, 64])
def test_partners_are_other_images_both_ways_and_those_of_any_part(count, repetitions):
    partners, block = augment.partners(count, repetitions), 2 * repetitions
    assert partners.dtype == np.int32 and partners.min() >= 0 and partners.max() < count
    whole = count // block * block
    assert (partners[partners[:whole]] == np.arange(whole)).all()
    images = np.arange(count) // repetitions
    assert (images[partners[:whole]] == images[:whole] ^ 1).all()
    if count > block:
        assert (images[partners] != images).all()
    if count % block == 0:
        part = augment.partners(block, repetitions)
        expected = [part + start for start in range(0, count, block)]
        np.testing.assert_array_equal(partners, np.concatenate(expected))


def test_drawn_corners_and_shifts_cover_their_range_evenly(rng):
    for draw, bound, low in ((augment.draw_corners, 8, 0), (augment.draw_shifts, 4, -4)):
        drawn = draw(rng, 9000, bound)
        assert drawn.shape == (2, 9000)
        for axis in drawn:
            values, counts = np.unique(axis, return_counts=True)
            assert values.tolist() == list(range(low, low + 9))
            assert (abs(counts - 1000) < 5 * 1000**0.5).all()
        assert abs(np.corrcoef(drawn)[0, 1]) < 0.05


def test_jitter(batch, rng):
    values = augment.draw_jitter(rng, len(batch), 0.3, 0.2)
    changed = augment.jitter(batch.copy(), *values)
    assert changed.dtype == np.float32
    for image, shift, factor, found in zip(batch, *values.astype(np.float64), changed, strict=True):
        np.testing.assert_allclose(found, (image.astype(np.float64) + shift) * factor, rtol=1e-6, atol=1e-6)


def test_drawn_jitter_is_uniform(rng):
    shifts, factors = augment.draw_jitter(rng, 20_000, 0.1399, 0.1308)
    for drawn, middle, reach in ((shifts, 0, 0.1399), (factors, 1, 0.1308)):
        assert drawn.dtype == np.float32
        counts, _ = np.histogram(drawn, bins=10, range=(middle - reach, middle + reach))
        assert counts.sum() == 20_000 and (abs(counts - 2000) < 5 * 2000**0.5).all()
    assert abs(np.corrcoef(shifts, factors)[0, 1]) < 0.05


def test_drawn_flips_are_even(rng):
    flips = augment.draw_flips(rng, 10_000)
    assert flips.dtype == bool and abs(flips.mean() - 0.5) < 0.025


@pytest.mark.parametrize("per_image", [False, True])
def test_drawn_mixup_has_beta_weights(rng, per_image):
    drawn = np.stack([augment.draw_mixup(rng, 6, 0.4, per_image=per_image) for _ in range(2000)])
    assert drawn.dtype == np.float32 and drawn.shape == (2000, 6)
    assert {len(set(row)) for row in drawn.tolist()} == {6 if per_image else 1}
    assert drawn.min() >= 0 and drawn.max() <= 1
    # Var Beta(a, a) = 1 / (4 (2a + 1))
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.04)
    assert drawn[:, 0].var() == pytest.approx(1 / 7.2, rel=0.1)


def test_alternating_flips_turn_every_image_in_every_second_epoch(rng):
    first = augment.draw_flips(rng, 50)
    indices = rng.permutation(50)[:20]
    for epoch in range(5):
        flips = augment.alternating_flips(first, indices, epoch)
        for flipped, index in zip(flips, indices, strict=True):
            assert flipped == (first[index] if epoch % 2 == 0 else not first[index])


def test_cutmix(batch, rng):
    images = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
    partners = np.array([4, 1, 0, 2, 2])
    boxes = np.array([[0, 0, SIZE, SIZE], [1, 2, 3, 3], [5, 5, 1, 1], [2, 2, 0, 4], [1, 0, 2, SIZE]])
    mixed = augment.cutmix(images.copy(), partners, boxes)
    for k, (top, left, height, width) in enumerate(boxes):
        for row in range(SIZE):
            for column in range(SIZE):
                inside = top <= row < top + height and left <= column < left + width
                source = images[partners[k] if inside else k, row, column]
                np.testing.assert_array_equal(mixed[k, row, column], source)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("side", [1, 2, 33])
def test_drawn_cutmix_lies_inside(rng, side, per_image):
    for alpha in (0.2, 1.0):
        boxes = augment.draw_cutmix(rng, 50, alpha, side, per_image=per_image)
        assert boxes.shape == (50, 4) and boxes.min() >= 0
        assert (boxes[:, :2] + boxes[:, 2:] <= side).all()
        assert (len(set(map(tuple, boxes))) > 1) is (per_image and side > 1)


def test_drawn_cutmix_has_beta_areas_and_even_places(rng):
    """Boxes that the border does not cut have 1 - w of the area; w ~ Beta(1, 1) is uniform."""
    boxes = augment.draw_cutmix(rng, 20_000, 1.0, 1000, per_image=True)
    top, left, height, width = boxes.T
    whole = (top > 0) & (left > 0) & (top + height < 1000) & (left + width < 1000)
    np.testing.assert_allclose(height[whole], width[whole])
    # s^2 is uniform, and a box of side s is whole with probability (1 - s)^2: half of those have s < 0.386.
    assert whole.mean() == pytest.approx(1 / 6, abs=0.01)
    assert (height[whole] < 386).mean() == pytest.approx(0.5, abs=0.03)
    centres = np.stack([top + height // 2, left + width // 2])[:, whole]
    assert abs(centres.mean() - 500) < 10 and abs(np.corrcoef(centres)[0, 1]) < 0.05
