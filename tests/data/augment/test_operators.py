# SPDX-License-Identifier: Apache-2.0
"""The table of operators, and what each makes of an image whose result can be worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from src.data.augment.operators import OPERATORS, Operator
from tests.helpers.pictures import noise

# name -> (value at magnitude 0, at 10, at 20), as in RandAugment's TPU code
TABLE = {
    "AutoContrast": (0, 0, 0), "Equalize": (0, 0, 0), "Invert": (0, 0, 0), "Rotate": (0, 30, 60),
    "Posterize": (0, 4, 8), "Solarize": (0, 256, 512), "SolarizeAdd": (0, 110, 220),
    "Color": (0.1, 1.9, 3.7), "Contrast": (0.1, 1.9, 3.7), "Brightness": (0.1, 1.9, 3.7),
    "Sharpness": (0.1, 1.9, 3.7), "ShearX": (0, 0.3, 0.6), "ShearY": (0, 0.3, 0.6),
    "TranslateX": (0, 0.45, 0.9), "TranslateY": (0, 0.45, 0.9), "Cutout": (0, 0.35, 0.7),
}  # fmt: skip
GEOMETRY = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}


def apply(name, image, value=0.0, seed=0):
    return np.array(OPERATORS[name].function(Image.fromarray(image), value, np.random.default_rng(seed)))


def test_the_table_has_the_16_operators_and_their_ranges():
    assert list(OPERATORS) == list(TABLE)
    for name, values in TABLE.items():
        assert [OPERATORS[name].value(magnitude) for magnitude in (0, 10, 20)] == pytest.approx(values), name
    assert [Operator(None, -3, 5).value(magnitude) for magnitude in (-5, 2.5)] == [-7, -1]


@pytest.mark.parametrize("name", OPERATORS)
def test_any_picture_and_magnitude_gives_a_new_picture_of_the_same_size(name):
    for size in ((1, 1), (1, 7), (5, 1), (17, 31)):
        for magnitude in (-30, 0, 10, 100):
            for image in (noise(*size), np.full((*size, 3), 200, np.uint8)):
                given = Image.fromarray(image)
                result = OPERATORS[name].function(
                    given, OPERATORS[name].value(magnitude), np.random.default_rng(0)
                )
                assert (result.size, result.mode) == (given.size, "RGB")
                result.paste((1, 2, 3), (0, 0, *result.size))
                np.testing.assert_array_equal(np.array(given), image)


def upper_bits(bits):
    return lambda level: level - level % 2 ** (8 - bits)


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("Invert", 0, lambda v: 255 - v),
    ("Brightness", 1.75, lambda v: min(int(1.75 * v), 255)),
    ("Posterize", -3, upper_bits(1)), ("Posterize", 0.9, upper_bits(1)), ("Posterize", 2.5, upper_bits(2)),
    ("Posterize", 7.99, upper_bits(7)), ("Posterize", 12, upper_bits(8)),
    ("Solarize", 100.9, lambda v: v if v < 100 else 255 - v), ("Solarize", 256, lambda v: v),
    ("Solarize", -20, lambda v: 255 - v),
    ("SolarizeAdd", 110.7, lambda v: v + 110 if v < 128 else v),
    ("SolarizeAdd", -20.5, lambda v: max(v - 20, 0) if v < 128 else v),
    ("SolarizeAdd", 220, lambda v: min(v + 220, 255) if v < 128 else v),
])  # fmt: skip
def test_what_becomes_of_each_level(name, value, expected):
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 77)], axis=-1).reshape(16, 16, 3)
    table = np.array([expected(level) for level in range(256)], np.uint8)
    np.testing.assert_array_equal(apply(name, image, value), table[image])


def test_each_channel_is_stretched_and_equalized_by_itself():
    image = np.full((30, 34, 3), 10, np.uint8)  # 340 pixels of 10, 20 and 40; the last channel has one level
    image[10:20, :, :2], image[20:, :, :2] = 20, 40
    image[..., 1] += 50
    assert levels_of(apply("AutoContrast", image)) == [[0, 85, 255], [0, 85, 255], [10]]
    # Steps of (340 + 340) // 255 pixels: none lies below 10, 340 below 20, and 680 below 40.
    assert levels_of(apply("Equalize", image)) == [[0, 170, 255], [0, 170, 255], [10]]


def levels_of(image):
    return [np.unique(image[..., channel]).tolist() for channel in range(3)]


def test_a_blend_is_with_the_picture_that_lacks_the_quality():
    dot = np.zeros((7, 7, 3), np.uint8)
    dot[3, 3] = 130
    smooth = np.zeros((7, 7))
    smooth[2:5, 2:5], smooth[3, 3] = 10, 50  # 1/13 each, 5/13 in the middle
    coloured = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    coloured[2:] = 40, 40, 40
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    without = {
        "Sharpness": (dot, smooth[..., None]),
        "Color": (coloured, np.array([round(grey), 40])[[0, 0, 1, 1], None, None]),
        "Contrast": (coloured, round((round(grey) + 40) / 2)),
        "Brightness": (coloured, 0),
    }
    for name, (image, plain) in without.items():
        for factor in (-0.5, 0, 0.25, 1, 1.75, 3.5):  # exact in float32
            expected = np.floor(np.clip(plain + factor * (image.astype(float) - plain), 0, 255))
            np.testing.assert_array_equal(apply(name, image, factor), expected + np.zeros(image.shape))


def either(name, image, value):
    """The two results of a geometric operator, by the sign of its value; both come about equally often."""
    results = [apply(name, image, value, seed) for seed in range(40)]
    counts = [sum(np.array_equal(one, result) for one in results) for result in results]
    assert min(counts) >= 8 and max(counts) <= 32
    return {result.tobytes() for result in results}


def of(*images):
    return {np.ascontiguousarray(image).tobytes() for image in images}


def test_geometry_and_cutout_alone_draw():
    image, drawing = noise(9, 9), set()
    for name, operator in OPERATORS.items():
        if len({apply(name, image, operator.value(10), seed).tobytes() for seed in range(9)}) > 1:
            drawing.add(name)
    assert drawing == {*GEOMETRY, "Cutout"}
    for name in GEOMETRY:
        np.testing.assert_array_equal(apply(name, noise(10, 17)), noise(10, 17))


def test_translate_goes_by_shares_of_width_and_height():
    image = noise(4, 8)
    left, right, up, down = (np.full_like(image, 128) for _ in range(4))
    left[:, :6], right[:, 2:] = image[:, 2:], image[:, :6]
    up[:3], down[1:] = image[1:], image[:3]
    assert either("TranslateX", image, 0.25) == of(left, right)
    assert either("TranslateY", image, 0.25) == of(up, down)


def test_a_shear_of_a_half_moves_the_rows_by_a_quarter_and_three_and_five():
    """0.25, 0.75 and 1.25 pixels, about the upper left corner."""
    image = noise(3, 4)
    left, right = image.copy(), image.copy()
    left[1:] = right[1:] = 128
    left[1:, :3], right[1:, 1:] = image[1:, 1:], image[1:, :3]
    assert either("ShearX", image, 0.5) == of(left, right)
    assert either("ShearY", np.ascontiguousarray(image.swapaxes(0, 1)), 0.5) == of(
        left.swapaxes(0, 1), right.swapaxes(0, 1)
    )


def test_rotate_is_about_the_middle_and_leaves_grey():
    image = noise(5, 5)
    assert either("Rotate", image, 90) == of(np.rot90(image), np.rot90(image, -1))
    corners = np.full((9, 9, 3), 7, np.uint8)
    result = apply("Rotate", corners, 45)
    assert (result[[0, 0, 8, 8], [0, 8, 0, 8]] == 128).all(), "grey beside the image, not black"
    assert (result[[0, 4, 4, 8], [4, 0, 8, 4]] == 7).all()


@pytest.mark.parametrize(("share", "side"), [(-1, 0), (0.2, 0), (0.25, 1), (0.7, 2), (0.9, 3), (3, 12)])
def test_cutout_is_a_square_around_any_pixel_cut_at_the_border(share, side):
    image, expected = noise(3, 4), set()
    for row in range(3):
        for column in range(4):
            result = image.copy()
            top, left = row - side // 2, column - side // 2
            result[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 128
            expected |= of(result)
    assert expected == {apply("Cutout", image, share, seed).tobytes() for seed in range(200)}
