from collections import Counter

import numpy as np
import pytest
from PIL import Image

from src.data.augment import autoaugment as module
from src.data.augment.autoaugment import IMAGENET, RANGES, autoaugment
from src.data.augment.operators import OPERATORS, Operator
from tests.helpers.pictures import noise


@pytest.fixture
def seen(monkeypatch):
    """(name, value) of each operator that is applied, which leaves the image as it is."""
    applied = []

    def watched(name, operator):
        def function(image, value, rng):
            applied.append((name, round(value, 6)))
            return image

        return Operator(function, operator.low, operator.high)

    monkeypatch.setattr(module, "RANGES", {name: watched(name, RANGES[name]) for name in RANGES})
    return applied


def test_the_table_is_the_papers():
    """25 sub-policies, of which five are there twice, and how often each operator stands in it."""
    assert len(IMAGENET) == 25 and len(set(IMAGENET)) == 20
    counts = Counter(name for pair in IMAGENET for name, _, _ in pair)
    assert counts == {
        "Equalize": 17, "Posterize": 5, "Rotate": 6, "Solarize": 7, "AutoContrast": 2, "Color": 6,
        "Invert": 3, "Contrast": 2, "Sharpness": 1, "ShearX": 1,
    }  # fmt: skip
    assert sum(probability for pair in IMAGENET for _, probability, _ in pair) == pytest.approx(31.0)


@pytest.mark.parametrize(("name", "magnitude", "value"), [
    ("Rotate", 9, 27), ("ShearX", 5, 0.15), ("Solarize", 5, 128), ("Posterize", 0, 4), ("Posterize", 8, 7.2),
    ("Posterize", 10, 8), ("Color", 0, 0.1), ("Color", 5, 1.0), ("Contrast", 8, 1.54), ("Sharpness", 7, 1.36),
])  # fmt: skip
def test_the_ranges_are_the_papers(name, magnitude, value):
    assert RANGES[name].value(magnitude) == pytest.approx(value)


def test_randaugment_keeps_its_own_range():
    assert (OPERATORS["Posterize"].low, OPERATORS["Posterize"].high) == (0, 4)
    kept = RANGES["Posterize"].function(Image.fromarray(noise(8, 8)), 7.2, np.random.default_rng(0))
    np.testing.assert_array_equal(np.array(kept), noise(8, 8) & 0b11111110)


def test_sub_policies_are_equally_likely_and_operators_as_the_table_says(seen):
    """Each entry is expected in 5,000 / 25 images times its probability."""
    rng = np.random.default_rng(0)
    for _ in range(5000):
        autoaugment(noise(1, 1), rng)
    expected = Counter()
    for pair in IMAGENET:
        for name, probability, magnitude in pair:
            expected[name, round(RANGES[name].value(magnitude), 6)] += 200 * probability
    counts = Counter(seen)
    assert set(counts) == {entry for entry, mean in expected.items() if mean}
    for entry, mean in expected.items():
        assert abs(counts[entry] - mean) < 5 * mean**0.5 + 1


def test_the_second_operator_follows_the_first(monkeypatch):
    table = {
        "add": Operator(lambda image, value, rng: image.point(lambda v: v + 1), 0, 0),
        "double": Operator(lambda image, value, rng: image.point(lambda v: v * 2), 0, 0),
    }
    monkeypatch.setattr(module, "RANGES", table)
    monkeypatch.setattr(module, "IMAGENET", ((("add", 0.5, 0), ("double", 0.5, 0)),))
    image = np.full((1, 1, 3), 10, np.uint8)
    results = [int(autoaugment(image, np.random.default_rng(seed))[0, 0, 0]) for seed in range(100)]
    assert set(results) == {10, 11, 20, 22}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (33, 20)])
def test_any_picture_keeps_its_shape_and_is_a_function_of_the_generator(shape):
    image = noise(*shape)
    image.setflags(write=False)
    first = [autoaugment(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in first)
    assert all(result.flags.writeable and not np.shares_memory(result, image) for result in first)
    for seed in reversed(range(60)):
        np.testing.assert_array_equal(autoaugment(image, np.random.default_rng(seed)), first[seed])
    assert len({result.tobytes() for result in first}) > (15 if shape == (33, 20) else 2)
