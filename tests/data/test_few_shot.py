# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.errors import UserError
from src.data.few_shot import few_shot

NAMES = ("cat", "dog", "owl")


def labels(seed=0, each=20):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(3, dtype=np.int32), each))


@given(seed=st.integers(0, 2**32), few=st.integers(1, 20), more=st.integers(0, 19), order=st.integers(0, 9))
def test_every_class_has_that_many_and_small_sets_are_inside_large_ones(seed, few, more, order):
    more = min(20, few + more)
    small, large = (few_shot(labels(order), k, seed, class_names=NAMES) for k in (few, more))
    for chosen, each in ((small, few), (large, more)):
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert np.bincount(labels(order)[chosen], minlength=3).tolist() == [each] * 3
    assert set(small) <= set(large)


def test_the_choice_is_a_function_of_the_seed_and_fair():
    picks = [few_shot(labels(), 1, seed, class_names=NAMES) for seed in range(400)]
    np.testing.assert_array_equal(few_shot(labels(), 1, 7, class_names=NAMES), picks[7])
    counts = np.bincount(np.concatenate(picks), minlength=60)
    assert counts.sum() == 1200 and counts.min() >= 5 and counts.max() <= 45  # 20 expected of each


def test_classes_are_drawn_apart():
    places = few_shot(np.repeat(np.arange(3), 20), 5, 0, class_names=NAMES).reshape(3, 5) % 20
    assert len({tuple(row) for row in places.tolist()}) == 3


def test_a_class_does_not_depend_on_the_others():
    mine = labels()
    merged = np.where(mine == 2, 1, mine)
    chosen, again = few_shot(mine, 5, 3, class_names=NAMES), few_shot(merged, 5, 3, class_names=NAMES[:2])
    assert set(chosen[mine[chosen] == 0]) == set(again[merged[again] == 0])


@pytest.mark.parametrize(("short", "count"), [([0, 0, 0, 1, 1, 2, 2, 2], 2), ([0, 0, 0, 2, 2, 2], 0)])
def test_a_class_with_too_few_is_named(short, count):
    with pytest.raises(
        UserError, match=f"examples_per_class 3 is more than the {count} .* class dog"
    ) as caught:
        few_shot(np.array(short, np.int32), 3, 0, class_names=NAMES)
    assert "\n" not in str(caught.value)
