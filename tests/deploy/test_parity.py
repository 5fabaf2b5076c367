# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from src.deploy.parity import compare_logits

REFERENCE = np.array([[1.0, -4.0], [2.0, 3.0]])


def test_same_logits():
    assert compare_logits(REFERENCE, REFERENCE) == {
        "largest_logit": 4.0,
        "max_difference": 0.0,
        "relative_difference": 0.0,
        "limit": 1e-5,
        "passed": True,
        "top1_agreement": 1.0,
    }


@pytest.mark.parametrize(("difference", "passed"), [(3.9e-5, True), (4.1e-5, False)])
def test_limit_is_relative_to_the_largest_logit(difference, passed):
    report = compare_logits(REFERENCE, REFERENCE + np.array([[difference, 0], [0, 0]]))
    assert report["passed"] is passed
    assert report["max_difference"] == pytest.approx(difference)
    assert report["relative_difference"] == pytest.approx(difference / 4)


def test_networks_of_signs_pass_by_their_largest_class():
    """For them it is enough that 19 of 20 rows have the same one."""
    reference = np.tile([[1.0, -4.0]], (20, 1))
    for turned, passed in ((1, True), (2, False)):
        other = reference + 0.1
        other[:turned] = other[:turned, ::-1]
        assert compare_logits(reference, other, signs=True)["passed"] is passed
        assert compare_logits(reference, other)["passed"] is False


def test_top1_agreement_counts_rows():
    assert compare_logits(REFERENCE, REFERENCE[:, ::-1])["top1_agreement"] == 0
    assert compare_logits(REFERENCE, np.array([[1.0, -4.0], [3.0, 2.0]]))["top1_agreement"] == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["reference", "exported", "both"])
def test_values_that_are_not_finite_never_pass(bad, where):
    broken = np.array([[bad, 1.0], [1.0, 1.0]])
    reference = broken if where != "exported" else REFERENCE
    exported = broken if where != "reference" else REFERENCE
    with np.errstate(invalid="ignore"):
        assert compare_logits(reference, exported)["passed"] is False
        assert compare_logits(reference, exported, signs=True)["passed"] is False


def test_all_zero_logits():
    zeros = np.zeros((2, 3))
    assert compare_logits(zeros, zeros)["passed"] is True
    report = compare_logits(zeros, zeros + 1e-9)
    assert report["passed"] is False and report["relative_difference"] == float("inf")
