"""Every operator against a slow oracle or an image made by hand, over both signs and all places."""

import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from src.data.image_operators import OPERATORS, Operator
from tests.helpers.pictures import noise

# name -> (value at magnitude 0, at 10, at 20)
TABLE = {
    "AutoContrast": (0, 0, 0),
    "Equalize": (0, 0, 0),
    "Invert": (0, 0, 0),
    "Rotate": (0, 30, 60),
    "Posterize": (0, 4, 8),
    "Solarize": (0, 256, 512),
    "SolarizeAdd": (0, 110, 220),
    "Color": (0.1, 1.9, 3.7),
    "Contrast": (0.1, 1.9, 3.7),
    "Brightness": (0.1, 1.9, 3.7),
    "Sharpness": (0.1, 1.9, 3.7),
    "ShearX": (0, 0.3, 0.6),
    "ShearY": (0, 0.3, 0.6),
    "TranslateX": (0, 0.45, 0.9),
    "TranslateY": (0, 0.45, 0.9),
    "Cutout": (0, 0.35, 0.7),
}
LEVELS = np.arange(256, dtype=np.uint8)


def apply(name, image, value=0.0, seed=0):
    result = OPERATORS[name].function(Image.fromarray(image), value, np.random.default_rng(seed))
    return np.array(result)


def of_levels(table):
    """An image whose rows hold all 256 levels, in another order in each channel, and its mapped twin."""
    orders = [LEVELS, LEVELS[::-1], np.roll(LEVELS, 77)]
    image = np.stack(orders, axis=-1).reshape(16, 16, 3)
    return image, np.array([table(int(level)) for level in image.ravel()], np.uint8).reshape(image.shape)


def per_channel(image, channel_table):
    """The image with each channel looked up in the table that `channel_table` makes of its values."""
    result = np.empty_like(image)
    for c in range(3):
        table = channel_table([int(v) for v in image[..., c].ravel()])
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                result[y, x, c] = table(int(image[y, x, c]))
    return result


# --- the table


def test_the_table_has_the_16_operators_and_their_ranges():
    assert len(OPERATORS) == 16 and list(OPERATORS) == list(TABLE)
    for name, values in TABLE.items():
        found = [OPERATORS[name].value(magnitude) for magnitude in (0, 10, 20)]
        assert found == pytest.approx(values), name


@pytest.mark.parametrize(("magnitude", "expected"), [(-5, -7), (0, -3), (2.5, -1), (10, 5), (20, 13)])
def test_a_value_is_linear_in_the_magnitude(magnitude, expected):
    assert Operator(None, -3, 5).value(magnitude) == expected


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_leaves_its_input_as_it_is_and_makes_a_new_image(name):
    before = noise(9, 12)
    image = Image.fromarray(before)
    result = OPERATORS[name].function(image, 0.6, np.random.default_rng(0))
    assert result is not image
    result.paste((1, 2, 3), (0, 0, 12, 9))
    np.testing.assert_array_equal(np.array(image), before)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 3), (17, 31)])
def test_no_size_and_no_magnitude_is_too_odd(name, size):
    for magnitude in (-30, -1, 0, 1, 10, 20, 30, 100):
        for image in (noise(*size), np.full((*size, 3), 200, np.uint8), np.zeros((*size, 3), np.uint8)):
            result = apply(name, image, OPERATORS[name].value(magnitude))
            assert result.shape == image.shape and result.dtype == np.uint8


# --- colour tables


def test_invert():
    image, expected = of_levels(lambda v: 255 - v)
    np.testing.assert_array_equal(apply("Invert", image), expected)


@pytest.mark.parametrize(
    ("value", "bits"),
    [(-3, 1), (0, 1), (0.9, 1), (1, 1), (2.5, 2), (4, 4), (7.99, 7), (8, 8), (8.3, 8), (12, 8)],
)
def test_posterize_keeps_the_upper_bits(value, bits):
    image, expected = of_levels(lambda v: v - v % 2 ** (8 - bits))
    np.testing.assert_array_equal(apply("Posterize", image, value), expected)


@pytest.mark.parametrize("value", [-20, 0, 1, 100.9, 128, 255, 256, 512])
def test_solarize_inverts_from_the_threshold_on(value):
    image, expected = of_levels(lambda v: v if v < int(value) else 255 - v)
    np.testing.assert_array_equal(apply("Solarize", image, value), expected)


@pytest.mark.parametrize("value", [-300, -20.5, 0, 0.9, 55, 110.7, 127, 220, 1000])
def test_solarize_add_adds_below_128_alone(value):
    image, expected = of_levels(lambda v: min(max(v + int(value), 0), 255) if v < 128 else v)
    np.testing.assert_array_equal(apply("SolarizeAdd", image, value), expected)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1), (100, 151), (3, 88), (204, 255), (7, 7)])
def test_autocontrast_stretches_each_channel_over_all_levels(low, high):
    """Spans that divide 255, where no rounding hides anything."""
    image = np.random.default_rng(1).integers(low, high + 1, (6, 7, 3), np.uint8)
    image[0, 0], image[0, 1] = low, high
    image[..., 2] = 9  # one level: stays

    def stretched(values):
        low, high = min(values), max(values)
        return lambda v: v if low == high else math.floor(Fraction(255 * (v - low), high - low))

    np.testing.assert_array_equal(apply("AutoContrast", image), per_channel(image, stretched))


def test_autocontrast_on_other_spans_is_within_one_level():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = rng.integers(rng.integers(0, 100), rng.integers(101, 257), (5, 5, 3), np.uint8)
        low, high = (edge.astype(float) for edge in (image.min((0, 1)), image.max((0, 1))))
        error = apply("AutoContrast", image) - (image - low) * 255 / (high - low)
        assert error.max() < 1e-6 and error.min() > -1 - 1e-6


def equalized(values):
    """The histogram's running sum in 255 steps; the last level that occurs is not counted in the step."""
    counts = [values.count(level) for level in range(256)]
    step = (len(values) - counts[max(values)]) // 255
    if step == 0:
        return lambda v: v
    return lambda v: min((step // 2 + sum(counts[:v])) // step, 255)


@pytest.mark.parametrize("shape", [(3, 5), (16, 17), (23, 40)])
def test_equalize(shape):
    image = (noise(*shape, seed=2).astype(float) ** 2 / 600).astype(np.uint8)
    image[..., 2] = 9
    result = apply("Equalize", image)
    np.testing.assert_array_equal(result, per_channel(image, equalized))
    assert (result == image).all() == (shape == (3, 5)), "too few pixels for a step, and only then"


def test_equalize_by_hand():
    """510 pixels of 10 and 510 of 20, so steps of 2: nothing lies below 10, and 510 // 2 below 20."""
    image = np.full((30, 34, 3), 10, np.uint8)
    image[15:] = 20
    result = apply("Equalize", image)
    assert (result[:15] == 0).all() and (result[15:] == 255).all()


# --- colour blends

FACTORS = [-0.5, 0, 0.25, 1, 1.75, 3.5]  # exact in float32


def blended(image, without, factor):
    return np.floor(np.clip(without + factor * (image.astype(float) - without), 0, 255))


def luma(image):
    """Rec. 601, rounded to whole levels; and where the rounding is not for another precision to decide."""
    grey = image.astype(float) @ [0.299, 0.587, 0.114]
    return np.floor(grey + 0.5), np.abs(grey % 1 - 0.5) > 0.01


@pytest.mark.parametrize("factor", FACTORS)
def test_brightness_blends_with_black(factor):
    image = noise(8, 9)
    np.testing.assert_array_equal(apply("Brightness", image, factor), blended(image, 0, factor))


@pytest.mark.parametrize("factor", FACTORS)
def test_color_blends_with_the_grey_image(factor):
    image = noise(30, 31)
    grey, clear = luma(image)
    assert clear.mean() > 0.9
    expected = blended(image, grey[..., None], factor)
    np.testing.assert_array_equal(apply("Color", image, factor)[clear], expected[clear])


@pytest.mark.parametrize("factor", FACTORS)
def test_contrast_blends_with_the_mean_grey(factor):
    image = noise(30, 31, seed=1)
    mean = luma(image)[0].mean()
    assert abs(mean % 1 - 0.5) > 0.1
    expected = blended(image, np.floor(mean + 0.5), factor)
    np.testing.assert_array_equal(apply("Contrast", image, factor), expected)


@pytest.mark.parametrize("factor", FACTORS)
def test_sharpness_blends_with_the_smoothed_image(factor):
    """3x3 mean with the weight 5 in the middle; the border has no full neighbourhood and stays."""
    image = noise(7, 8)
    smooth = image.astype(float)
    for y in range(1, 6):
        for x in range(1, 7):
            total = image[y - 1 : y + 2, x - 1 : x + 2].astype(int).sum((0, 1)) + 4 * image[y, x].astype(int)
            smooth[y, x] = [math.floor(Fraction(int(t), 13) + Fraction(1, 2)) for t in total]
    np.testing.assert_array_equal(apply("Sharpness", image, factor), blended(image, smooth, factor))


# --- geometry


def sampled(image, source):
    """Pixel (x, y) is the one that its middle's source lies in, grey outside; and where that is clear."""
    height, width, _ = image.shape
    result, clear = np.full_like(image, 128), np.ones((height, width), bool)
    for y in range(height):
        for x in range(width):
            u, v = source(x + 0.5, y + 0.5)
            clear[y, x] = min(abs(u - round(u)), abs(v - round(v))) > 0.01
            if 0 <= u < width and 0 <= v < height:
                result[y, x] = image[int(v), int(u)]
    return result, clear


def turned(degrees, width, height):
    """Counter-clockwise about the middle; rows run down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def source(x, y):
        x, y = x - width / 2, y - height / 2
        return cos * x - sin * y + width / 2, sin * x + cos * y + height / 2

    return source


GEOMETRY = {
    "Rotate": turned,
    "ShearX": lambda slope, w, h: lambda x, y: (x + slope * y, y),
    "ShearY": lambda slope, w, h: lambda x, y: (x, y + slope * x),
    "TranslateX": lambda share, w, h: lambda x, y: (x + share * w, y),
    "TranslateY": lambda share, w, h: lambda x, y: (x, y + share * h),
}


def test_geometry_and_cutout_alone_draw():
    image = noise(9, 9)
    results = {
        n: {apply(n, image, o.value(10), seed).tobytes() for seed in range(9)} for n, o in OPERATORS.items()
    }
    assert {name for name, found in results.items() if len(found) > 1} == {*GEOMETRY, "Cutout"}


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("magnitude", [4, 9.6, 19.7])
@pytest.mark.parametrize("size", [(13, 13), (10, 17)])
def test_geometry_goes_either_way(name, magnitude, size):
    image = noise(*size, seed=3)
    value = OPERATORS[name].value(magnitude)
    ways = [sampled(image, GEOMETRY[name](sign * value, size[1], size[0])) for sign in (1, -1)]
    taken = []
    for seed in range(12):
        result = apply(name, image, value, seed)
        fits = [(result == expected)[clear].all() for expected, clear in ways]
        assert sum(fits) == 1
        taken.append(fits[0])
    assert 2 <= sum(taken) <= 10
    assert min(clear.mean() for _, clear in ways) > 0.7


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_of_magnitude_0_moves_nothing_and_a_long_way_leaves_grey(name):
    image = noise(10, 17)
    np.testing.assert_array_equal(apply(name, image, 0.0), image)
    if name.startswith("Translate"):
        assert (apply(name, image, OPERATORS[name].value(31)) == 128).all()


def either(name, image, value):
    """The two results of a geometric operator, by the sign of its value."""
    results = [apply(name, image, value, seed) for seed in range(12)]
    return {result.tobytes(): result for result in results}.values()


def assert_the_two(results, *expected):
    assert {r.tobytes() for r in results} == {np.ascontiguousarray(e).tobytes() for e in expected}


def test_translate_by_hand():
    image = noise(4, 4)
    left, right, up, down = (np.full_like(image, 128) for _ in range(4))
    left[:, :1], right[:, 3:] = image[:, 3:], image[:, :1]
    up[:1], down[3:] = image[3:], image[:1]
    assert_the_two(either("TranslateX", image, 0.75), left, right)
    assert_the_two(either("TranslateY", image, 0.75), up, down)


def test_shear_by_hand():
    """A slope of 1/2 moves the rows 0, 1, 2 by 0.25, 0.75, 1.25 pixels, about the upper left corner."""
    image = noise(3, 4)
    left, right = image.copy(), image.copy()
    left[1:] = right[1:] = 128
    left[1:, :3], right[1:, 1:] = image[1:, 1:], image[1:, :3]
    assert_the_two(either("ShearX", image, 0.5), left, right)
    turned_back = [result.swapaxes(0, 1) for result in (left, right)]
    assert_the_two(either("ShearY", np.ascontiguousarray(image.swapaxes(0, 1)), 0.5), *turned_back)


def test_rotate_by_hand():
    image = noise(5, 5)
    assert_the_two(either("Rotate", image, 90), np.rot90(image), np.rot90(image, -1))
    assert_the_two(either("Rotate", image, 180), image[::-1, ::-1])
    corners = np.full((9, 9, 3), 7, np.uint8)
    for result in either("Rotate", corners, 45):
        assert (result[[0, 0, 8, 8], [0, 8, 0, 8]] == 128).all(), "grey beside the image, not black"
        assert (result[[0, 4, 4, 8], [4, 0, 8, 4]] == 7).all()


@pytest.mark.parametrize(("share", "side"), [(0.25, 1), (0.5, 2), (0.7, 2), (0.9, 3), (1, 4), (3, 12)])
def test_cutout_is_a_square_around_any_pixel_cut_at_the_border(share, side):
    image = noise(3, 4)
    expected = set()
    for row in range(3):
        for column in range(4):
            result = image.copy()
            for y in range(3):
                for x in range(4):
                    offsets = y - row + side // 2, x - column + side // 2
                    if all(0 <= offset < side for offset in offsets):
                        result[y, x] = 128
            expected.add(result.tobytes())
    assert expected == {apply("Cutout", image, share, seed).tobytes() for seed in range(200)}


@pytest.mark.parametrize("share", [-1, 0, 0.2])
def test_cutout_of_less_than_a_pixel_is_none(share):
    image = noise(4, 4)
    np.testing.assert_array_equal(apply("Cutout", image, share), image)
