# SPDX-License-Identifier: Apache-2.0
"""Boxes and resizing against loops over pixels, MindSpore's operators and Pillow."""

import math

import numpy as np
import pytest
from PIL import Image

from src.data import resize as geometry
from src.data.preparation import Preparation
from tests.helpers.pictures import noise

INTERPOLATIONS = ["bilinear", "bicubic", "tf_bilinear"]
SHAPES = [(1, 1), (1, 1000), (1000, 1), (3, 2), (2, 3), (375, 500), (224, 224), (33, 700)]


def bilinear(image, height, width):
    """Bilinear interpolation between pixel centres, without antialiasing, in float64."""
    rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip((height, width), image.shape))
    result = np.zeros((height, width, 3))
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            for near_row in (math.floor(row), math.floor(row) + 1):
                for near_column in (math.floor(column), math.floor(column) + 1):
                    weight = (1 - abs(row - near_row)) * (1 - abs(column - near_column))
                    inside = (
                        min(max(near_row, 0), image.shape[0] - 1),
                        min(max(near_column, 0), image.shape[1] - 1),
                    )
                    result[y, x] += weight * image[inside]
    return result


@pytest.mark.parametrize("target", [(5, 9), (16, 16), (30, 21)])
def test_tf_bilinear_is_the_formula(target):
    image = noise(13, 17)
    resized = geometry.resize(image, *target, "tf_bilinear")
    assert resized.shape == (*target, 3) and resized.dtype == np.uint8
    np.testing.assert_allclose(resized, bilinear(image, *target), atol=1.01)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("target", [(50, 50), (64, 40), (32, 32), (21, 17), (9, 40), (3, 2), (1, 1)])
def test_shrinking_and_enlarging_are_pillows(target, interpolation):
    """The values are far from 0 and 255: Pillow clips between the two sides as well."""
    image = noise(32, 48, low=80, high=176)
    expected = Image.fromarray(image).resize(target[::-1], Image.Resampling[interpolation.upper()])
    resized = geometry.resize(image, *target, interpolation).astype(int)
    assert np.abs(resized - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", [20, 96])
def test_tf_bilinear_has_mindspores_pixels_which_are_tensorflows(size):
    from mindspore.dataset import vision

    image, (top, left, height, width) = noise(75, 100), (11, 7, 50, 64)
    operator = vision.ResizedCrop(top, left, height, width, (size, size), vision.Inter.BILINEAR)
    resized = geometry.resize_box((top, left, height, width), size, size, "tf_bilinear")(image)
    np.testing.assert_array_equal(operator(image), resized)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_nothing_outside_the_box_is_read(interpolation):
    image, box = noise(60, 60), (20, 10, 17, 23)
    alone = geometry.cut(image, box).copy()
    for size in (7, 40):
        inside = geometry.resize_box(box, size, size, interpolation)(image)
        np.testing.assert_array_equal(inside, geometry.resize(alone, size, size, interpolation))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(300, 200), (40, 31)])
def test_a_part_is_that_of_the_whole(size, interpolation):
    image, part = noise(90, 120), (11, 5, 13, 20)
    resizing = geometry.Resizing((0, 0, 90, 120), *size, part, interpolation)
    whole = geometry.resize(image, *size, interpolation)
    np.testing.assert_array_equal(resizing(image), geometry.cut(whole, part))
    rows = resizing.bottom
    np.testing.assert_array_equal(resizing(image[:rows]), resizing(image))
    assert rows == 90 if interpolation == "tf_bilinear" else rows < 90 or interpolation == "bilinear"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_strips_change_nothing(monkeypatch, interpolation):
    image = noise(50, 70)
    expected = geometry.resize(image, 20, 30, interpolation)
    monkeypatch.setattr(geometry, "_STRIP", 50 * 3 * 9)
    np.testing.assert_array_equal(geometry.resize(image, 20, 30, interpolation), expected)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_what_was_reduced_before_has_the_same_scale(reduction):
    """The last row and column are parts of pixels: a ramp keeps its slope and its place."""
    ramp = np.zeros((8 * 30 + 1, 8 * 40 + 3, 3))
    ramp[:] = np.arange(ramp.shape[1])[:, None] / 2
    sides = [range(0, side, reduction) for side in ramp.shape[:2]]
    reduced = np.array(
        [[ramp[y : y + reduction, x : x + reduction].mean((0, 1)) for x in sides[1]] for y in sides[0]]
    )
    plan = geometry.resize_box((0, 0, *ramp.shape[:2]), 6, 8, "bilinear")
    assert (
        np.abs(plan(ramp.astype(np.uint8)) - plan(reduced.astype(np.uint8), reduction).astype(int)).max() <= 1
    )


@pytest.mark.parametrize(("shape", "interpolation", "reduction"), [
    ((599, 800), "bilinear", 1), ((600, 800), "bilinear", 2), ((1200, 1200), "bicubic", 4),
    ((9000, 2400), "bilinear", 8), ((9000, 9000), "tf_bilinear", 1),
])  # fmt: skip
def test_a_decoder_may_leave_three_times_the_pixels(shape, interpolation, reduction):
    assert geometry.resize_box((0, 0, *shape), 100, 100, interpolation).reduction == reduction


@pytest.mark.parametrize(("side", "reduction"), [(99, 1), (100, 2), (199, 2), (200, 4), (900, 8)])
def test_a_quick_resize_leaves_less_than_twice_the_pixels_to_a_plain_one(side, reduction):
    box = (3, 5, side, 2 * side)
    quick = geometry.resize_box(box, 50, 60, "bilinear", is_quick=True)
    assert quick.reduction == reduction and quick.bottom == 3 + side
    whole = noise(3 + side, 5 + 2 * side)
    as_it_is = "tf_bilinear" if reduction == 1 else "bilinear"  # a PNG is not reduced: it is antialiased
    expected = geometry.resize_box(box, 50, 60, as_it_is)(whole)
    np.testing.assert_array_equal(quick(whole), expected)


def test_a_quick_resize_of_what_was_reduced_rounds_the_edges():
    image = noise(60, 80)
    quick = geometry.resize_box((3, 6, 201, 250), 50, 60, "bilinear", is_quick=True)
    np.testing.assert_array_equal(quick(image, 4), geometry.resize(image[1:51, 2:64], 50, 60, "tf_bilinear"))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_can_be_resized(shape, interpolation):
    assert (
        geometry.resize(np.full((*shape, 3), 200, np.uint8), 8, 8, interpolation).tolist()
        == [[[200] * 3] * 8] * 8
    )


def loop_box(height, width, uniform, area, ratio):
    """torchvision's documented algorithm with uniform numbers given."""
    for k in range(10):
        target = height * width * (area[0] + uniform[k] * (area[1] - area[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + uniform[10 + k] * (high - low))
        w, h = round((target * aspect) ** 0.5), round((target / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return math.floor(uniform[20] * (height - h + 1)), math.floor(uniform[21] * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("area", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (1.2, 3.0))])
def test_random_boxes_are_torchvisions(shape, area, ratio):
    uniform = np.random.default_rng(1).random((22, 200))
    columns = geometry.draw_boxes(np.random.default_rng(1), 200, area, ratio)
    for drawn, numbers in zip(uniform.T, columns.T, strict=True):
        top, left, height, width = geometry.random_box(*shape, numbers, ratio)
        assert (top, left, height, width) == loop_box(*shape, drawn, area, ratio)
        assert height >= 1 and width >= 1
        assert 0 <= top <= shape[0] - height and 0 <= left <= shape[1] - width


def test_random_boxes_cover_their_range_evenly():
    area, ratio = (0.2, 0.5), (0.8, 1.25)
    columns = geometry.draw_boxes(np.random.default_rng(2), 4000, area, ratio).T
    boxes = np.array([geometry.random_box(1000, 1000, numbers, ratio) for numbers in columns])
    top, left, height, width = boxes.T
    share, aspect = height * width / 1e6, width / height
    assert share.min() >= 0.199 and share.max() <= 0.501
    assert np.histogram(share, 6, area)[0].min() > 560
    assert aspect.min() >= 0.798 and aspect.max() <= 1.253
    assert np.histogram(np.log(aspect), 6, np.log(ratio))[0].min() > 560
    for place, room in ((top, 1000 - height), (left, 1000 - width)):
        assert place.min() == 0 and (place == room).any()
        assert np.histogram(place / room, 6, (0, 1))[0].min() > 560
    assert abs(np.corrcoef(top / (1000 - height), left / (1000 - width))[0, 1]) < 0.06


@pytest.mark.parametrize(("shape", "ratio", "expected"), [
    ((10, 1000), (3 / 4, 4 / 3), (0, 493, 10, 13)), ((1000, 10), (3 / 4, 4 / 3), (493, 0, 13, 10)),
    ((30, 30), (3 / 4, 4 / 3), (0, 0, 30, 30)), ((1, 9), (0.1, 0.2), (0, 4, 1, 1)),
    ((9, 1), (5.0, 10.0), (4, 0, 1, 1)),
])  # fmt: skip
def test_without_a_fit_the_box_is_the_largest_central_one_and_never_empty(shape, ratio, expected):
    for share in (4.0, 1e-9):  # too large, and rounded to nothing
        numbers = np.array([share] * 10 + [1.0] * 10 + [0.5, 0.5])
        assert geometry.random_box(*shape, numbers, ratio) == expected


def prepared(image, **settings):
    size = settings.pop("size", 16)
    return Preparation(size, (0, 0, 0), (1, 1, 1), **settings).square(image)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [
    {"crop": "squash"}, {"crop": "centre"}, {"crop": "centre", "crop_percentage": 0.76},
    {"crop": "squash", "crop_percentage": 0.01},
])  # fmt: skip
def test_any_picture_becomes_one_square(shape, settings, interpolation):
    result = prepared(noise(*shape), **settings, interpolation=interpolation)
    assert result.shape == (16, 16, 3) and result.dtype == np.uint8 and result.flags.c_contiguous


@pytest.mark.parametrize(("size", "percentage", "whole"), [(224, 0.875, 256), (16, 0.8, 20), (17, 0.8, 21)])
def test_squash_cuts_out_the_share_in_the_middle(size, percentage, whole):
    image, start = noise(40, 90), (whole - size) // 2
    expected = geometry.resize(image, whole, whole, "bilinear")[start : start + size, start : start + size]
    squashed = prepared(image, size=size, crop="squash", crop_percentage=percentage)
    np.testing.assert_array_equal(squashed, expected)


@pytest.mark.parametrize(("shape", "resized", "corner"), [
    ((40, 60), (20, 30), (2, 7)), ((60, 40), (30, 20), (7, 2)), ((20, 20), (20, 20), (2, 2)),
    ((30, 31), (20, 21), (2, 2)), ((10, 40), (20, 80), (2, 32)),
])  # fmt: skip
def test_centre_resizes_the_short_side_and_cuts_out_the_middle(shape, resized, corner):
    image, (top, left) = noise(*shape), corner
    whole = geometry.resize(image, *resized, "bilinear")
    expected = whole[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(prepared(image, crop_percentage=0.8), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_picture_of_the_right_size_is_left_as_it_is(interpolation):
    image = noise(16, 16)
    for crop in ("squash", "centre"):
        np.testing.assert_array_equal(prepared(image, crop=crop, interpolation=interpolation), image)
    np.testing.assert_array_equal(
        prepared(noise(16, 31), interpolation=interpolation), noise(16, 31)[:, 7:23]
    )


def test_shrinking_counts_every_pixel():
    board = np.repeat((np.indices((256, 256)).sum(axis=0) % 2 * 255)[:, :, None], 3, axis=2).astype(np.uint8)
    for interpolation in ("bilinear", "bicubic"):
        assert np.abs(prepared(board, interpolation=interpolation) - 127.5).max() <= 1.5


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_panorama_shows_its_centre_and_costs_no_more_than_4_to_1(interpolation):
    ramp = np.broadcast_to(np.arange(401, dtype=np.float32)[:, None, None] * 255 / 400, (401, 4, 3))
    plan = Preparation(16, (0, 0, 0), (1, 1, 1), interpolation=interpolation).plan_square(401, 4)
    assert (plan.height, plan.width) == (64, 16)
    result = plan(ramp.astype(np.uint8))
    assert abs(result.mean() - 127.5) < 1 and (np.diff(result[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(("shape", "size", "multiple", "expected"), [
    ((40, 90), 45, 1, (20, 45)), ((90, 40), 64, 32, (64, 32)), ((1, 1000), 96, 32, (32, 96)),
    ((50, 50), 50, 1, (50, 50)),
])  # fmt: skip
def test_a_whole_picture_keeps_its_shape(shape, size, multiple, expected):
    plan = Preparation(size, (0, 0, 0), (1, 1, 1)).plan_whole(*shape, multiple=multiple)
    image = noise(*shape)
    np.testing.assert_array_equal(plan(image), geometry.resize(image, *expected, "bilinear"))


@pytest.mark.parametrize(("settings", "allowed"), [
    ({"crop": "center"}, "squash, centre"), ({"interpolation": "nearest"}, "bilinear, bicubic, tf_bilinear"),
    ({"crop_percentage": 0}, "above 0 and 1 at most"), ({"crop_percentage": 1.1}, "above 0 and 1 at most"),
])  # fmt: skip
def test_unknown_names_and_numbers_out_of_range_are_refused(settings, allowed):
    with pytest.raises(ValueError, match=allowed):
        Preparation(20, (0, 0, 0), (1, 1, 1), **settings)
