# SPDX-License-Identifier: Apache-2.0
"""The policy's table, what its magnitudes mean in both readings, and how often each operator is applied."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from src.data.augment.autoaugment import POLICIES, AutoAugment
from src.data.augment.operators import Operator
from tests.helpers.pictures import noise

OFFICIAL, PAPER = POLICIES["imagenet"], POLICIES["imagenet_paper"]
GREY = (128, 128, 128)


class Sign:
    """A generator that draws this sign."""

    def __init__(self, sign):
        self.sign = sign

    def random(self):
        return 0.0 if self.sign > 0 else 0.9


def applied(policy, name, magnitude, image, sign=1):
    operator = policy.operators[name]
    return operator.function(Image.fromarray(image), operator.value(magnitude), Sign(sign))


def test_the_table_is_the_papers():
    """25 sub-policies, of which five are there twice, and how often each operator stands in it."""
    assert len(PAPER.policy) == 25 and len(set(PAPER.policy)) == 20
    counts = Counter(name for pair in PAPER.policy for name, _, _ in pair)
    assert counts == {
        "Equalize": 17, "Posterize": 5, "Rotate": 6, "Solarize": 7, "AutoContrast": 2, "Color": 6,
        "Invert": 3, "Contrast": 2, "Sharpness": 1, "ShearX": 1,
    }  # fmt: skip
    assert sum(probability for pair in PAPER.policy for _, probability, _ in pair) == pytest.approx(31.0)


def test_the_official_code_leaves_out_the_last_sub_policy():
    assert OFFICIAL.policy == PAPER.policy[:24]


# What the official MultiGrain code does with a magnitude, in Pillow's words.
EXPECTED = {
    ("Posterize", 5): lambda image, sign: ImageOps.posterize(image, 6),
    ("Posterize", 6): lambda image, sign: ImageOps.posterize(image, 5),
    ("Posterize", 7): lambda image, sign: ImageOps.posterize(image, 5),
    ("Posterize", 8): lambda image, sign: ImageOps.posterize(image, 4),
    ("Solarize", 3): lambda image, sign: ImageOps.solarize(image, 171),
    ("Solarize", 8): lambda image, sign: ImageOps.solarize(image, 29),
    ("Rotate", 3): lambda image, sign: image.rotate(10, fillcolor=GREY),
    ("Rotate", 9): lambda image, sign: image.rotate(30, fillcolor=GREY),
    ("Color", 0): lambda image, sign: image,
    ("Color", 8): lambda image, sign: ImageEnhance.Color(image).enhance(1 + sign * 0.8),
    ("Contrast", 8): lambda image, sign: ImageEnhance.Contrast(image).enhance(1 + sign * 0.8),
    ("Sharpness", 7): lambda image, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * 0.7),
    ("ShearX", 5): lambda image, sign: image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, sign * 0.3 * 5 / 9, 0, 0, 1, 0),
        Image.Resampling.BICUBIC,
        fillcolor=GREY,
    ),
}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("name", "magnitude"), EXPECTED)
def test_the_official_magnitudes(name, magnitude, sign):
    image = noise(40, 31)
    expected = EXPECTED[name, magnitude](Image.fromarray(image), sign)
    np.testing.assert_array_equal(applied(OFFICIAL, name, magnitude, image, sign), expected)


@pytest.mark.parametrize(("name", "magnitude", "value"), [
    ("Rotate", 9, 27), ("ShearX", 5, 0.15), ("Solarize", 5, 128), ("Posterize", 0, 4), ("Posterize", 8, 7.2),
    ("Posterize", 10, 8), ("Color", 0, 0.1), ("Color", 5, 1.0), ("Contrast", 8, 1.54), ("Sharpness", 7, 1.36),
])  # fmt: skip
def test_the_ranges_of_the_papers_authors(name, magnitude, value):
    assert PAPER.operators[name].value(magnitude) == pytest.approx(value)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_sub_policies_are_equally_likely_and_operators_as_the_table_says(policy):
    """Each entry is expected in 5,000 / 25 images times its probability."""
    seen = Counter()

    def counting(name, operator):
        def function(image, value, rng):
            seen[name, round(value, 6)] += 1
            return image

        return Operator(function, operator.low, operator.high)

    watched = {name: counting(name, operator) for name, operator in policy.operators.items()}
    augment, rng, count = AutoAugment(policy.policy, watched), np.random.default_rng(0), len(policy.policy)
    for _ in range(200 * count):
        augment(noise(1, 1), rng)
    expected = Counter()
    for pair in policy.policy:
        for name, probability, magnitude in pair:
            expected[name, round(watched[name].value(magnitude), 6)] += 200 * probability
    assert set(seen) == {entry for entry, mean in expected.items() if mean}
    for entry, mean in expected.items():
        assert abs(seen[entry] - mean) < 5 * mean**0.5 + 1


def test_the_second_operator_follows_the_first():
    table = {
        "add": Operator(lambda image, value, rng: image.point(lambda v: v + 1), 0, 0),
        "double": Operator(lambda image, value, rng: image.point(lambda v: v * 2), 0, 0),
    }
    augment = AutoAugment(((("add", 0.5, 0), ("double", 0.5, 0)),), table)
    image = np.full((1, 1, 3), 10, np.uint8)
    results = [int(augment(image, np.random.default_rng(seed))[0, 0, 0]) for seed in range(100)]
    assert set(results) == {10, 11, 20, 22}


@pytest.mark.parametrize("autoaugment", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (33, 20)])
def test_any_picture_keeps_its_shape_and_is_a_function_of_the_generator(shape, autoaugment):
    image = noise(*shape)
    image.setflags(write=False)
    first = [autoaugment(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in first)
    assert all(result.flags.writeable and not np.shares_memory(result, image) for result in first)
    for seed in reversed(range(60)):
        np.testing.assert_array_equal(autoaugment(image, np.random.default_rng(seed)), first[seed])
    assert len({result.tobytes() for result in first}) > (15 if shape == (33, 20) else 2)
