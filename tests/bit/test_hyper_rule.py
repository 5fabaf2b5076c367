# SPDX-License-Identifier: Apache-2.0
"""Every number of BiT-HyperRule against tables written out by hand, and against the rule told as a loop."""

import numpy as np
import pytest

from src.bit import hyper_rule

SMALL = (100, 200, 300, 400, 500)
MEDIUM = (500, 3000, 6000, 9000, 10000)
LARGE = (500, 6000, 12000, 18000, 20000)

# examples: schedule, mixup's alpha
BY_EXAMPLES = {
    1: (SMALL, 0.0),
    10: (SMALL, 0.0),
    1000: (SMALL, 0.0),
    19_999: (SMALL, 0.0),
    20_000: (MEDIUM, 0.1),
    20_001: (MEDIUM, 0.1),
    50_000: (MEDIUM, 0.1),
    499_999: (MEDIUM, 0.1),
    500_000: (LARGE, 0.1),
    1_281_167: (LARGE, 0.1),
}

# examples: the rate at single steps, around every change
RATES = {
    19_999: {
        0: 0, 1: 0.00003, 50: 0.0015, 99: 0.00297, 100: 0.003, 101: 0.003,
        199: 0.003, 200: 0.003, 201: 0.0003, 202: 0.0003,
        299: 0.0003, 300: 0.0003, 301: 0.00003,
        399: 0.00003, 400: 0.00003, 401: 0.000003, 499: 0.000003,
    },
    20_000: {
        0: 0, 1: 0.000006, 250: 0.0015, 499: 0.002994, 500: 0.003, 501: 0.003,
        2999: 0.003, 3000: 0.003, 3001: 0.0003,
        5999: 0.0003, 6000: 0.0003, 6001: 0.00003,
        8999: 0.00003, 9000: 0.00003, 9001: 0.000003, 9999: 0.000003,
    },
    500_000: {
        0: 0, 1: 0.000006, 250: 0.0015, 499: 0.002994, 500: 0.003, 501: 0.003,
        5999: 0.003, 6000: 0.003, 6001: 0.0003,
        11999: 0.0003, 12000: 0.0003, 12001: 0.00003,
        17999: 0.00003, 18000: 0.00003, 18001: 0.000003, 19999: 0.000003,
    },
}  # fmt: skip


@pytest.mark.parametrize("examples", BY_EXAMPLES)
def test_schedule_length_and_mixup_by_the_size_of_the_data_set(examples):
    schedule, alpha = BY_EXAMPLES[examples]
    assert hyper_rule.schedule(examples) == schedule
    assert hyper_rule.mixup_alpha(examples) == alpha
    assert hyper_rule.rates(examples).shape == (schedule[-1],)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (32, 32, (160, 128)),
        (64, 64, (160, 128)),
        (1, 9215, (160, 128)),  # 96 * 96 - 1
        (95, 97, (160, 128)),  # 9215
        (96, 96, (512, 480)),
        (1, 9216, (512, 480)),
        (224, 224, (512, 480)),
        (2000, 3000, (512, 480)),
    ],
)
def test_resolution_by_the_area_of_the_images(height, width, expected):
    assert hyper_rule.resolution(height, width) == expected
    assert hyper_rule.resolution(width, height) == expected


@pytest.mark.parametrize("examples", RATES)
def test_the_rate_at_single_steps(examples):
    table = RATES[examples]
    found = hyper_rule.rates(examples)
    assert found[0] == 0 and len(found) - 1 == max(table)
    np.testing.assert_allclose(found[list(table)], list(table.values()), rtol=1e-12)


def told_as_a_loop(warmup, decays, end, lr):
    """Counts the steps up; a decay is felt by the step after its own."""
    found, rate = [], lr
    for step in range(end):
        if step - 1 in decays:
            rate = rate / 10
        found.append(rate * (step / warmup) if step < warmup else rate)
    return found


@pytest.mark.parametrize("lr", [0.003, 0.001, 1.0])
@pytest.mark.parametrize("examples", BY_EXAMPLES)
def test_every_step_against_the_loop(examples, lr):
    warmup, *decays, end = BY_EXAMPLES[examples][0]
    found = hyper_rule.rates(examples, lr=lr)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, told_as_a_loop(warmup, decays, end, lr), rtol=1e-12)


def test_the_rate_is_the_papers_unless_another_is_given():
    np.testing.assert_array_equal(hyper_rule.rates(50_000), hyper_rule.rates(50_000, lr=0.003))


@pytest.mark.parametrize(
    ("images", "rate"),
    [(512, 0.003), (128, 0.001), (32, 0.001 / 3), (8, 0.001 / 9), (2048, 0.009), (256, 0.003 / 3**0.5)],
)
def test_the_base_rate_falls_to_a_third_with_a_quarter_of_the_batch(images, rate):
    assert hyper_rule.base_rate(images) == pytest.approx(rate, rel=1e-12)


def test_the_base_rate_lies_between_the_linear_and_the_square_root_rule():
    for images in (1, 16, 100, 500):
        share = images / 512
        assert 0.003 * share < hyper_rule.base_rate(images) < 0.003 * share**0.5
