# SPDX-License-Identifier: Apache-2.0
"""The metrics against plain loops and scikit-learn, and how they add up over ranks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from src.common.errors import UserError
from src.evaluation import metrics
from src.evaluation.metrics import (
    CONFUSION_CLASSES,
    METRICS,
    Metric,
    Totals,
    check_metric,
    in_words,
    interval,
    is_better,
    score,
    warning_of,
)


def _sample(*, classes, images, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32) * 3
    return logits, rng.integers(classes, size=images)


def _totals(logits, labels):
    totals = Totals(logits.shape[1])
    totals.update(logits, labels)
    return totals


def _order(row):
    """Classes from the highest logit down; of equal ones the lower index first."""
    return sorted(range(len(row)), key=lambda k: (-row[k], k))


def _oracle(logits, labels):
    """The definitions, one image at a time."""
    top1 = top5 = 0
    loss = 0.0
    confusion = np.zeros((logits.shape[1],) * 2, dtype=np.int64)
    for row, label in zip(logits.astype(float).tolist(), labels.tolist(), strict=True):
        order = _order(row)
        top1 += order[0] == label
        top5 += label in order[:5]
        confusion[label, order[0]] += 1
        loss += math.log(math.fsum(math.exp(value) for value in row)) - row[label]
    count = len(labels)
    result = {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count, "count": count}
    if logits.shape[1] <= 5:
        del result["top5"]
    return result, confusion


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 6, 10, 100])
def test_metrics_agree_with_the_definitions(classes):
    logits, labels = _sample(classes=classes, images=83)
    totals = _totals(logits, labels)
    expected, confusion = _oracle(logits, labels)
    assert totals.result() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    np.testing.assert_array_equal(totals.confusion, confusion)
    assert totals.confusion.dtype == np.int64


@pytest.mark.parametrize("classes", [3, 10, 37])
def test_metrics_agree_with_scikit_learn(classes):
    logits, labels = _sample(classes=classes, images=200, seed=classes)
    totals = _totals(logits, labels)
    result = totals.result()
    names = list(range(classes))
    softmax = np.exp(logits.astype(np.float64))
    softmax /= softmax.sum(axis=1, keepdims=True)
    for key, k in (("top1", 1), ("top5", 5)):
        if k < classes:
            assert result[key] == pytest.approx(
                100 * sk.top_k_accuracy_score(labels, logits, k=k, labels=names)
            )
    assert result["loss"] == pytest.approx(sk.log_loss(labels, softmax, labels=names))
    np.testing.assert_array_equal(
        totals.confusion, sk.confusion_matrix(labels, logits.argmax(axis=1), labels=names)
    )
    recall = sk.recall_score(labels, logits.argmax(axis=1), labels=names, average=None, zero_division=np.nan)
    np.testing.assert_allclose(totals.recall, 100 * recall)


def test_top5_is_left_out_where_every_answer_is_a_hit():
    for classes, expected in ((5, {"top1", "loss", "count"}), (6, {"top1", "top5", "loss", "count"})):
        assert _totals(*_sample(classes=classes, images=50)).result().keys() == expected
    one = _totals(np.array([[3.0], [-2.0]]), np.array([0, 0])).result()
    assert one == {"top1": 100, "loss": 0, "count": 2}


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=8), st.integers(0, 6)
)
@settings(deadline=None, max_examples=60)
def test_ties_go_to_the_lower_class(rows, label):
    logits, labels = np.array(rows, dtype=np.float32), np.full(len(rows), label)
    scores = score(logits, labels)
    for row, place, prediction in zip(rows, scores.place, scores.prediction, strict=True):
        assert place == _order(row).index(label)
        assert prediction == _order(row)[0]
    expected, _ = _oracle(logits, labels)
    assert _totals(logits, labels).result() == pytest.approx(expected)


def test_a_network_that_says_nothing_predicts_class_zero():
    totals = _totals(np.zeros((10, 10)), np.arange(10))
    assert totals.result() == pytest.approx({"top1": 10, "top5": 50, "loss": math.log(10), "count": 10})


def test_loss_is_stable_for_large_logits():
    totals = _totals(np.array([[1e4, 0.0], [0.0, 1e4]], dtype=np.float32), np.array([0, 0]))
    assert totals.sums["loss"] == 1e4


def test_float16_logits_are_scored_in_float64():
    logits, labels = _sample(classes=10, images=64)
    half = logits.astype(np.float16)
    assert _totals(half, labels).sums == _totals(half.astype(np.float64), labels).sums


@pytest.mark.parametrize("row", [[math.nan, 1, 2], [0, 1, math.nan], [math.inf, 0, 0], [-math.inf] * 3])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_logits_without_a_prediction_are_wrong_and_the_loss_is_nan(row, label):
    logits = np.array([row, [0.0, 1.0, 2.0]])
    totals = _totals(logits, np.array([label, 2]))
    result = totals.result()
    assert math.isnan(result["loss"])
    assert (result["top1"], result["count"]) == (50, 2)
    assert totals.images.sum() == 2 and totals.right.tolist() == [0, 0, 1]
    assert totals.confusion.sum() == totals.confusion[2, 2] == 1
    assert score(logits, np.array([label, 2])).prediction.tolist() == [-1, 2]


def test_minus_infinity_is_a_class_that_is_ruled_out():
    scores = score(np.array([[-math.inf, 0.0, 0.0]]), np.array([1]))
    assert scores.loss[0] == pytest.approx(math.log(2))
    assert score(np.array([[-math.inf, 0.0, 0.0]]), np.array([0])).loss[0] == math.inf


def test_nothing_counted_is_an_error():
    totals = Totals(3)
    totals.update(np.zeros((0, 3)), np.zeros(0, dtype=np.int32))
    with pytest.raises(UserError, match="no images"):
        totals.result()


def test_classes_and_data_must_agree():
    with pytest.raises(UserError, match="predicts 4 classes, 3 are expected"):
        Totals(3).update(np.zeros((2, 4)), np.array([0, 1]))
    with pytest.raises(UserError, match=r"label 3 is outside 0\.\.2"):
        Totals(3).update(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(UserError, match="label -1"):
        Totals(3).update(np.zeros((2, 3)), np.array([-1, 0]))
    for labels in (np.zeros(3, dtype=int), np.zeros(2), np.zeros((2, 1), dtype=int)):
        with pytest.raises(ValueError, match="integers"):
            Totals(3).update(np.zeros((2, 3)), labels)


def added(*totals):
    """The sums and the counts of several ranks."""
    return [sum(parts) for parts in zip(*(total.vectors() for total in totals), strict=True)]


@pytest.mark.parametrize("classes", [3, 11, CONFUSION_CLASSES + 1])
def test_vectors_of_ranks_add_up_to_the_whole(classes):
    logits, labels = _sample(classes=classes, images=101)
    whole = _totals(logits, labels)
    parts = [_totals(logits[rank::3], labels[rank::3]) for rank in range(3)]
    total = Totals.from_vectors(classes, *added(*parts))
    assert [vector.dtype for vector in total.vectors()] == [np.float64, np.int64]
    assert total.result() == pytest.approx(whole.result(), rel=1e-13)
    for name in ("images", "right", "confusion", "recall"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    for again, vector in zip(Totals.from_vectors(classes, *whole.vectors()).vectors(), whole.vectors()):
        np.testing.assert_array_equal(again, vector)


def test_ranks_of_different_size_are_not_averaged():
    big, small = _totals(np.eye(3)[[0] * 9], np.zeros(9, dtype=int)), _totals(np.eye(3)[[1]], np.array([0]))
    assert Totals.from_vectors(3, *added(big, small)).result()["top1"] == 90


def test_a_rounded_sum_is_noticed():
    big = Totals(2)
    big.sums["top1"] = 2**24 + 1
    big.images = big.right = np.array([2**23, 2**23 + 1])
    sums, counts = big.vectors()
    assert Totals.from_vectors(2, sums, counts).result()["count"] == 2**24 + 1
    with pytest.raises(ValueError, match="not added exactly"):
        Totals.from_vectors(2, sums.astype(np.float32), counts)
    with pytest.raises(ValueError, match="shapes for 3 classes"):
        Totals.from_vectors(3, sums, counts)


def test_many_classes_are_counted_without_a_matrix_of_their_square():
    """21,843 classes: a matrix would have 3.8 GB on each rank, and as much again on its way."""
    totals = Totals(21_843)
    totals.update(np.eye(21_843, dtype=np.float32)[[5, 7]], np.array([5, 9]))
    assert totals.confusion is None and totals.vectors()[1].nbytes < 1e6
    assert totals.right.sum() == totals.right[5] == 1 and totals.images[[5, 9]].tolist() == [1, 1]
    assert Totals.from_vectors(21_843, *totals.vectors()).result()["top1"] == 50
    assert Totals(CONFUSION_CLASSES).confusion is not None


def test_recall_of_a_class_without_images_is_nan():
    totals = _totals(np.eye(3)[[0, 0, 1]], np.array([0, 0, 0]))
    np.testing.assert_array_equal(totals.recall, [100 * 2 / 3, np.nan, np.nan])


def test_a_metric_is_one_entry(monkeypatch):
    """A share of images and a mean over classes: sums, figures, words and choices follow."""
    logits, labels = _sample(classes=7, images=60)
    third = Metric("top-3", "%", of_image=lambda scores: scores.place < 3, least_classes=4)
    macro = Metric("mean recall", "%", of_classes=np.nanmean)
    monkeypatch.setattr(metrics, "METRICS", METRICS | {"top3": third, "recall": macro})
    totals = Totals.from_vectors(7, *added(_totals(logits, labels), _totals(logits, labels)))
    figures = totals.result()
    assert figures["top3"] == pytest.approx(100 * sk.top_k_accuracy_score(labels, logits, k=3))
    predicted = logits.argmax(axis=1)
    assert figures["recall"] == pytest.approx(100 * sk.balanced_accuracy_score(labels, predicted))
    assert f"top-3 {figures['top3']:.2f} %" in in_words(figures)
    check_metric("top3", 7)
    with pytest.raises(UserError, match="top3 given, allowed with 3 classes: top1, loss, recall"):
        check_metric("top3", 3)


@pytest.mark.parametrize(("name", "worse", "better"), [("top1", 70, 80), ("loss", 0.8, 0.7)])
def test_which_figures_are_better(name, worse, better):
    assert is_better(name, {name: better}, {name: worse})
    assert not is_better(name, {name: worse}, {name: better})
    assert not is_better(name, {name: worse}, {name: worse})


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (3, 30), (29, 30), (7830, 10_000)])
def test_the_interval_holds_the_shares_that_the_score_test_accepts(right, count):
    """Wilson's interval by its definition: the p with |share - p| <= z sqrt(p (1 - p) / n)."""
    p = np.linspace(0, 1, 200_001)
    accepted = p[np.abs(right / count - p) <= 1.96 * np.sqrt(p * (1 - p) / count)]
    assert interval(100 * right / count, count) == pytest.approx(
        (100 * accepted[0], 100 * accepted[-1]), abs=2e-3
    )


def test_a_small_test_set_is_said():
    small = {"top1": 90.0, "loss": 0.25, "count": 30}
    assert in_words(small) == "top-1 90.00 % (95 % interval 74.4 to 96.5)  loss 0.2500  (30 images)"
    assert in_words({**small, "top5": 99.0, "count": 1000}) == (
        "top-1 90.00 %  loss 0.2500  top-5 99.00 %  (1000 images)"
    )
    assert in_words({**small, "top1_plain": 80.0, "loss_plain": 0.5, "count": 1000}) == (
        "top-1 90.00 % (plain view 80.00 %)  loss 0.2500  (1000 images)"
    )
    assert "30 images: top-1 is uncertain by up to 17 points" in warning_of(30)
    assert warning_of(1000) is None


def test_many_classes_need_no_memory_of_their_square():
    """Case 26: 80,000 classes squared are 51 GB."""
    classes = 80_000
    totals, logits = Totals(classes), np.zeros((2, classes), np.float32)
    logits[0, 7], logits[1, 79_999] = 1, 1
    totals.update(logits, np.array([7, 8]))
    sums, counts = totals.vectors()
    assert totals.confusion is None and len(counts) < 2.01 * classes
    figures = Totals.from_vectors(classes, sums, counts).result()
    assert (figures["top1"], figures["count"]) == (50.0, 2)
