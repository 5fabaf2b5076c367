"""Boxes and resizing against loops over pixels, MindSpore's operators and Pillow."""

import math

import numpy as np
import pytest
from PIL import Image

from src.data import resize as geometry
from tests.helpers.pictures import noise

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
def test_bilinear_is_the_formula(target):
    image = noise(13, 17)
    resized = geometry.resize(image, *target, "bilinear")
    assert resized.shape == (*target, 3) and resized.dtype == np.uint8
    np.testing.assert_allclose(resized, bilinear(image, *target), atol=1.01)


@pytest.mark.parametrize("target", [(4, 6), (5, 7), (12, 18), (1, 1)])
def test_area_is_the_mean_of_what_a_pixel_covers(target):
    image = noise(12, 18)
    shares = []  # of each old pixel in each new one, for rows and columns
    for new, old in zip(target, image.shape):
        edges = np.arange(new + 1) * old / new
        starts, stops = edges[:-1, None], edges[1:, None]
        covered = np.minimum(stops, np.arange(old) + 1) - np.maximum(starts, np.arange(old))
        shares.append(np.clip(covered, 0, None) * new / old)
    expected = np.einsum("yr,xc,rck->yxk", *shares, image.astype(np.float64))
    np.testing.assert_allclose(geometry.resize(image, *target, "area"), expected, atol=0.51)


@pytest.mark.parametrize("target", [(50, 50), (64, 40)])
def test_bilinear_enlarges_as_pillow_does(target):
    image = noise(32, 32)
    expected = Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR)
    resized = geometry.resize(image, *target, "bilinear").astype(int)
    assert np.abs(resized - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(("interpolation", "inter", "apart"), [
    ("bilinear", "BILINEAR", 0), ("bicubic", "BICUBIC", 1), ("area", "AREA", 0),
])  # fmt: skip
@pytest.mark.parametrize("size", [20, 96])
def test_a_resized_box_has_mindspores_pixels(interpolation, inter, apart, size):
    from mindspore.dataset import vision

    image, (top, left, height, width) = noise(75, 100), (11, 7, 50, 64)
    operator = vision.ResizedCrop(top, left, height, width, (size, size), vision.Inter[inter])
    box = geometry.cut(image, (top, left, height, width))
    resized = geometry.resize(box, size, size, interpolation)
    assert np.abs(operator(image).astype(int) - resized).max() <= apart


def test_nothing_outside_the_box_is_read():
    image, box = noise(60, 60), (20, 10, 17, 23)
    alone = geometry.cut(image, box).copy()
    for interpolation in ("bilinear", "bicubic", "area"):
        inside = geometry.resize(geometry.cut(image, box), 40, 40, interpolation)
        np.testing.assert_array_equal(inside, geometry.resize(alone, 40, 40, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
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
    defaults = {"size": 16, "eval_crop": "centre", "crop_percentage": 1.0, "interpolation": "bilinear"}
    return geometry.prepare_picture(image, **{**defaults, **settings})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [
    {"eval_crop": "squash"}, {"eval_crop": "centre"}, {"eval_crop": "centre", "crop_percentage": 0.76},
    {"eval_crop": "squash", "crop_percentage": 0.01},
])  # fmt: skip
def test_any_picture_becomes_one_square(shape, settings):
    result = prepared(noise(*shape), **settings)
    assert result.shape == (16, 16, 3) and result.dtype == np.uint8 and result.flags.c_contiguous


def test_squash_is_a_plain_resize():
    image = noise(40, 90)
    expected = geometry.resize(image, 16, 16, "area")
    squashed = prepared(image, eval_crop="squash", interpolation="area")
    np.testing.assert_array_equal(squashed, expected)


@pytest.mark.parametrize(("size", "percentage", "whole"), [(224, 0.875, 256), (16, 0.8, 20), (17, 0.8, 21)])
def test_squash_cuts_out_the_share_in_the_middle(size, percentage, whole):
    image, start = noise(40, 90), (whole - size) // 2
    expected = geometry.resize(image, whole, whole, "bilinear")[start : start + size, start : start + size]
    squashed = prepared(image, size=size, eval_crop="squash", crop_percentage=percentage)
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


def test_a_picture_of_the_right_size_is_left_as_it_is():
    image = noise(16, 16)
    for interpolation in ("bilinear", "bicubic", "area"):
        for crop in ("squash", "centre"):
            np.testing.assert_array_equal(prepared(image, eval_crop=crop, interpolation=interpolation), image)


def test_a_panorama_shows_its_centre_and_costs_no_more_than_4_to_1(monkeypatch):
    ramp = np.broadcast_to(np.arange(401, dtype=np.float32)[:, None, None] * 255 / 400, (401, 4, 3))
    sizes = []
    original = geometry.resize
    monkeypatch.setattr(
        geometry, "resize", lambda image, *size: sizes.append(size[:2]) or original(image, *size)
    )
    result = prepared(ramp.astype(np.uint8))
    assert sizes == [(64, 16)]
    assert abs(result.mean() - 127.5) < 1 and (np.diff(result[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "settings", [{"eval_crop": "center"}, {"crop_percentage": 0}, {"crop_percentage": 1.1}]
)
def test_unknown_crops_and_shares_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="eval_crop must be squash or centre, with"):
        prepared(noise(20, 20), **settings)


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="bilinear, bicubic, area"):
        geometry.resize(noise(4, 4), 2, 2, "nearest")
