"""The metrics against plain loops and scikit-learn, and the bookkeeping of padded batches and ranks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from src.common.errors import UserError
from src.evaluation.classification import Totals, evaluate, per_class_recall, score


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
    for key, k in (("top1", 1), ("top5", min(5, classes))):
        if k < classes:
            assert result[key] == pytest.approx(
                100 * sk.top_k_accuracy_score(labels, logits, k=k, labels=names)
            )
    assert result["loss"] == pytest.approx(sk.log_loss(labels, softmax, labels=names))
    np.testing.assert_array_equal(
        totals.confusion, sk.confusion_matrix(labels, logits.argmax(axis=1), labels=names)
    )
    recall = sk.recall_score(labels, logits.argmax(axis=1), labels=names, average=None, zero_division=np.nan)
    np.testing.assert_allclose(per_class_recall(totals.confusion), 100 * recall)


def test_fewer_than_five_classes_make_every_answer_a_top5_hit():
    logits, labels = _sample(classes=2, images=50)
    assert _totals(logits, labels).result()["top5"] == 100
    one = _totals(np.array([[3.0], [-2.0]]), np.array([0, 0])).result()
    assert one == {"top1": 100, "top5": 100, "loss": 0, "count": 2}


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
    assert totals.loss_sum == 1e4


def test_float16_logits_are_scored_in_float64():
    logits, labels = _sample(classes=10, images=64)
    half = logits.astype(np.float16)
    assert _totals(half, labels).loss_sum == _totals(half.astype(np.float64), labels).loss_sum


@pytest.mark.parametrize("row", [[math.nan, 1, 2], [0, 1, math.nan], [math.inf, 0, 0], [-math.inf] * 3])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_logits_without_a_prediction_are_wrong_and_the_loss_is_nan(row, label):
    logits = np.array([row, [0.0, 1.0, 2.0]])
    totals = _totals(logits, np.array([label, 2]))
    result = totals.result()
    assert math.isnan(result["loss"])
    assert (result["top1"], result["top5"], result["count"]) == (50, 50, 2)
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


def test_vectors_of_ranks_add_up_to_the_whole():
    logits, labels = _sample(classes=11, images=101)
    whole = _totals(logits, labels)
    parts = [_totals(logits[rank::3], labels[rank::3]) for rank in range(3)]
    total = Totals.from_vector(11, sum(part.vector() for part in parts))
    assert total.vector().dtype == np.float64
    assert total.result() == pytest.approx(whole.result(), rel=1e-13)
    np.testing.assert_array_equal(total.confusion, whole.confusion)
    np.testing.assert_array_equal(Totals.from_vector(11, whole.vector()).vector(), whole.vector())


def test_ranks_of_different_size_are_not_averaged():
    big, small = _totals(np.eye(3)[[0] * 9], np.zeros(9, dtype=int)), _totals(np.eye(3)[[1]], np.array([0]))
    assert Totals.from_vector(3, big.vector() + small.vector()).result()["top1"] == 90


def test_a_rounded_sum_is_noticed():
    big = Totals(2)
    big.count = big.top1 = big.top5 = 2**24 + 1
    big.confusion[0, 0], big.confusion[1, 1] = 2**23, 2**23 + 1
    assert Totals.from_vector(2, big.vector()).result()["count"] == 2**24 + 1
    with pytest.raises(ValueError, match="not added exactly"):
        Totals.from_vector(2, big.vector().astype(np.float32))
    with pytest.raises(ValueError, match="shape"):
        Totals.from_vector(3, big.vector())


class Linear:
    """A network that a test can follow: logits = pixels @ weights. Keeps what it was given."""

    def __init__(self, shape, classes):
        self.weights = np.random.default_rng(1).normal(size=(math.prod(shape), classes)).astype(np.float32)
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        return images.reshape(len(images), -1) @ self.weights


def _data(images=23, shape=(3, 4, 4), classes=6):
    rng = np.random.default_rng(2)
    return rng.normal(size=(images, *shape)).astype(np.float32), rng.integers(classes, size=images)


def _batches(images, labels, size):
    """Fixed batches; the last is filled with NaN images and labels that are no class."""
    for start in range(0, len(images), size):
        valid = min(size, len(images) - start)
        batch = np.full((size, *images.shape[1:]), np.nan, dtype=images.dtype)
        batch[:valid] = images[start : start + valid]
        padded = np.full(size, -7)
        padded[:valid] = labels[start : start + valid]
        yield batch, padded, valid


@pytest.mark.parametrize("size", [1, 5, 23, 64])
def test_evaluation_does_not_depend_on_the_batch_size(size):
    images, labels = _data()
    network = Linear(images.shape[1:], 6)
    evaluation = evaluate(network, _batches(images, labels, size), num_classes=6, worst=4)
    expected, confusion = _oracle(network(images), labels)
    assert evaluation.metrics == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(evaluation.confusion, confusion)
    assert all(len(seen) == size for seen in network.seen[:-1])


def test_predict_gets_contiguous_float32():
    images, labels = _data(images=4)
    network = Linear(images.shape[1:], 6)
    strided = images.astype(np.float64).transpose(0, 1, 3, 2)
    evaluate(network, [(strided, labels, 4)], num_classes=6, flip_tta=True)
    for seen, passed in zip(network.seen, (strided, strided[..., ::-1]), strict=True):
        assert seen.dtype == np.float32
        assert seen.flags.c_contiguous
        np.testing.assert_array_equal(seen, passed.astype(np.float32))


def test_flip_averages_the_logits_of_the_image_and_its_mirror():
    images, labels = _data()
    network = Linear(images.shape[1:], 6)
    mirrored = np.stack([np.stack([np.fliplr(channel) for channel in image]) for image in images])
    expected, _ = _oracle((network(images) + network(mirrored)) / 2, labels)
    plain, _ = _oracle(network(images), labels)
    found = evaluate(network, _batches(images, labels, 8), num_classes=6, flip_tta=True).metrics
    assert found == pytest.approx(expected, rel=1e-5)
    assert found["loss"] != pytest.approx(plain["loss"], rel=1e-3)


def test_predict_may_reuse_its_output():
    images, labels = _data(images=8)
    network = Linear(images.shape[1:], 6)
    output = np.zeros((8, 6))

    def predict(batch):
        output[:] = network(batch)
        return output

    found = evaluate(predict, [(images, labels, 8)], num_classes=6, flip_tta=True)
    expected = evaluate(network, [(images, labels, 8)], num_classes=6, flip_tta=True)
    assert found.metrics == pytest.approx(expected.metrics)


def test_ranks_reduce_to_the_metrics_of_the_whole():
    images, labels = _data(images=23)
    network = Linear(images.shape[1:], 6)
    whole = evaluate(network, _batches(images, labels, 4), num_classes=6)
    parts = []

    def collect(vector):
        parts.append(vector)
        return vector

    for rank in range(3):
        evaluate(network, _batches(images[rank::3], labels[rank::3], 4), num_classes=6, reduce=collect)
    assert len(parts) == 3
    # A rank without images of its own still takes part, and learns the same.
    found = evaluate(network, [], num_classes=6, reduce=lambda vector: vector + sum(parts))
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-12)
    np.testing.assert_array_equal(found.confusion, whole.confusion)


def test_a_batch_of_padding_counts_nothing():
    images, labels = _data(images=4)
    network = Linear(images.shape[1:], 6)
    whole = evaluate(network, [(images, labels, 4)], num_classes=6)
    found = evaluate(network, [(images, labels, 0), (images, labels, 4)], num_classes=6, worst=3)
    assert found.metrics == whole.metrics
    assert all(mistake.index < 4 for mistake in found.mistakes)
    with pytest.raises(UserError, match="no images"):
        evaluate(network, [(images, labels, 0)], num_classes=6)


@pytest.mark.parametrize("valid", [-1, 5])
def test_valid_must_fit_the_batch(valid):
    images, labels = _data(images=4)
    with pytest.raises(ValueError, match="valid"):
        evaluate(Linear(images.shape[1:], 6), [(images, labels, valid)], num_classes=6)


def test_predict_must_give_a_row_for_each_image():
    images, labels = _data(images=4)
    with pytest.raises(ValueError, match="3 rows"):
        evaluate(lambda batch: np.zeros((3, 6)), [(images, labels, 2)], num_classes=6)


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("worst", [1, 7, 100])
def test_mistakes_are_the_wrong_predictions_of_highest_loss(size, worst):
    images, labels = _data(images=40)
    network = Linear(images.shape[1:], 6)
    found = evaluate(network, _batches(images, labels, size), num_classes=6, worst=worst).mistakes
    logits = network(images).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = [i for i in range(40) if logits[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: probabilities[i, labels[i]])
    assert 7 < len(wrong) < 100
    assert [mistake.index for mistake in found] == wrong[:worst]
    for mistake in found:
        np.testing.assert_array_equal(mistake.image, images[mistake.index])
        assert mistake.image.dtype == np.float32
        assert mistake.label == labels[mistake.index]
        assert mistake.prediction == logits[mistake.index].argmax()
        assert mistake.probability == pytest.approx(probabilities[mistake.index].max(), rel=1e-4)
        assert mistake.loss == pytest.approx(-math.log(probabilities[mistake.index, mistake.label]), rel=1e-4)


def test_mistakes_of_equal_loss_keep_their_order_and_own_their_images():
    logits = np.array([[2.0, 0.0]] * 4)
    images = np.zeros((4, 1, 2, 2), dtype=np.float32)
    found = evaluate(lambda batch: logits, [(images, np.ones(4, dtype=int), 4)] * 2, num_classes=2, worst=6)
    images[:] = 9
    assert [mistake.index for mistake in found.mistakes] == [0, 1, 2, 3, 4, 5]
    assert not any(mistake.image.any() for mistake in found.mistakes)


def test_an_image_without_a_prediction_is_no_mistake_to_show():
    logits = np.array([[math.nan, 0.0], [-math.inf, 1.0], [0.0, 1.0]])
    images = np.zeros((3, 1, 2, 2))
    found = evaluate(lambda batch: logits, [(images, np.zeros(3, dtype=int), 3)], num_classes=2, worst=9)
    assert [(mistake.index, mistake.loss) for mistake in found.mistakes] == [
        (1, math.inf),
        (2, pytest.approx(math.log(1 + math.e))),
    ]


def test_no_mistakes_are_kept_unless_asked_for():
    images, labels = _data()
    assert not evaluate(Linear(images.shape[1:], 6), _batches(images, labels, 8), num_classes=6).mistakes


def test_recall_of_a_class_without_images_is_nan():
    np.testing.assert_array_equal(per_class_recall([[3, 1], [0, 0]]), [75, np.nan])
