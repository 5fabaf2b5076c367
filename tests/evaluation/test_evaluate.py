# SPDX-License-Identifier: Apache-2.0
"""The one loop: padded batches, several ranks, stops; and which mode a network runs in."""

import math
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from PIL import Image

from src import trained
from src.common import heartbeat
from src.common.errors import UserError
from src.evaluation.evaluate import EvaluationStopped, answers, evaluate, evaluate_network
from src.evaluation.metrics import Totals
from src.layers.pixels import Pixels
from src.model_utils.config import check
from src.model_utils.device_adapter import without_graph
from src.recipe import Recipe
from src.shared_config import SharedConfig


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


def _totals(logits, labels):
    totals = Totals(logits.shape[1])
    totals.update(logits, labels)
    return totals


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
    expected = _totals(network(images), labels)
    assert evaluation.metrics == pytest.approx(expected.result(), rel=1e-5)
    np.testing.assert_array_equal(evaluation.totals.confusion, expected.confusion)
    assert all(len(seen) == size for seen in network.seen[:-1])


def test_predict_gets_contiguous_float32():
    images, labels = _data(images=4)
    network = Linear(images.shape[1:], 6)
    strided = images.astype(np.float64).transpose(0, 1, 3, 2)
    evaluate(network, [(strided, labels, 4)], num_classes=6, tta="flip")
    for seen, passed in zip(network.seen, (strided, strided[..., ::-1]), strict=True):
        assert seen.dtype == np.float32
        assert seen.flags.c_contiguous
        np.testing.assert_array_equal(seen, passed.astype(np.float32))


def test_predict_may_reuse_its_output():
    images, labels = _data(images=8)
    network = Linear(images.shape[1:], 6)
    output = np.zeros((8, 6))

    def predict(batch):
        output[:] = network(batch)
        return output

    found = evaluate(predict, [(images, labels, 8)], num_classes=6, tta="flip")
    expected = evaluate(network, [(images, labels, 8)], num_classes=6, tta="flip")
    assert found.metrics == pytest.approx(expected.metrics)


def test_ranks_reduce_to_the_metrics_of_the_whole():
    images, labels = _data(images=23)
    network = Linear(images.shape[1:], 6)
    whole = evaluate(network, _batches(images, labels, 4), num_classes=6)
    parts = {np.dtype(np.float64): [], np.dtype(np.int64): []}

    def collect(vector):
        parts[vector.dtype].append(vector)
        return vector

    for rank in range(3):
        evaluate(network, _batches(images[rank::3], labels[rank::3], 4), num_classes=6, reduce=collect)
    assert [len(vectors) for vectors in parts.values()] == [3, 3]
    # A rank without images of its own still takes part, and learns the same.
    found = evaluate(network, [], num_classes=6, reduce=lambda vector: vector + sum(parts[vector.dtype]))
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-12)
    np.testing.assert_array_equal(found.totals.confusion, whole.totals.confusion)


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


@pytest.mark.parametrize(("size", "best"), [(3, 4), (40, 4), (7, 100)])
def test_the_surest_are_the_right_predictions_of_lowest_loss(size, best):
    images, labels = _data(images=40)
    network = Linear(images.shape[1:], 6)
    found = evaluate(network, _batches(images, labels, size), num_classes=6, best=best)
    logits = network(images).astype(np.float64)
    own = np.exp(logits)[np.arange(40), labels] / np.exp(logits).sum(axis=1)
    right = sorted((i for i in range(40) if logits[i].argmax() == labels[i]), key=lambda i: -own[i])
    assert 4 < len(right) < 40 and not found.mistakes
    assert [example.index for example in found.surest] == right[:best]
    for example in found.surest:
        np.testing.assert_array_equal(example.image, images[example.index])
        assert example.prediction == example.label == labels[example.index]


def test_no_images_are_kept_unless_asked_for():
    images, labels = _data()
    found = evaluate(Linear(images.shape[1:], 6), _batches(images, labels, 8), num_classes=6)
    assert not found.mistakes and not found.surest


def test_mistakes_of_a_shard_have_their_place_in_the_data_set():
    images, labels = _data(images=12)
    network = Linear(images.shape[1:], 6)
    whole = evaluate(network, _batches(images, labels, 4), num_classes=6, worst=50).mistakes

    class Shard:
        numbers = np.arange(5, 12)

        def __iter__(self):
            return _batches(images[5:], labels[5:], 4)

    shard = evaluate(network, Shard(), num_classes=6, worst=50).mistakes
    assert shard and [m.index for m in shard] == [m.index for m in whole if m.index >= 5]


def test_each_batch_is_given_without_its_filler():
    images, labels = _data(images=23)
    network, seen = Linear(images.shape[1:], 6), []
    evaluate(network, _batches(images, labels, 8), num_classes=6, each=lambda *given: seen.append(given))
    assert [batch.indices.tolist() for batch, _ in seen] == [[*range(8)], [*range(8, 16)], [*range(16, 23)]]
    assert all(len(batch.images) == len(batch.indices) for batch, _ in seen)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch, _ in seen]), labels)
    predictions = np.concatenate([scores.prediction for _, scores in seen])
    np.testing.assert_array_equal(predictions, network(images).argmax(axis=1))


def test_a_stop_is_seen_between_batches():
    """What it raises comes through before another batch is evaluated, and batches count as progress."""
    images, labels = _data(images=40)
    network, before = Linear(images.shape[1:], 6), heartbeat._made

    def between():
        if len(network.seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(network, _batches(images, labels, 4), num_classes=6, between=between)
    assert len(network.seen) == 2 and heartbeat._made == before + 3


def test_a_stop_of_one_rank_ends_the_evaluation_of_all():
    """Each takes part in the sum, so that none waits for ever."""
    images, labels = _data(images=40)
    network, sent = Linear(images.shape[1:], 6), []

    def reduce(vector):
        sent.append(vector)
        return np.sum([part for part in sent if part.shape == vector.shape], axis=0)

    how = {"num_classes": 6, "reduce": reduce}
    with pytest.raises(EvaluationStopped):
        evaluate(network, _batches(images, labels, 4), **how, between=lambda: len(network.seen) == 2)
    assert len(network.seen) == 2 and len(sent) == 2
    with pytest.raises(EvaluationStopped):
        evaluate(network, _batches(images, labels, 8), **how, between=lambda: False)
    assert len(network.seen) == 2 + 5


def test_outputs_may_have_any_shape():
    images, labels = _data(images=9)
    found = list(answers(lambda x: x[:, :, 0], _batches(images, labels, 4)))
    np.testing.assert_array_equal(np.concatenate([batch.outputs for batch in found]), images[:, :, 0])


class AnyRecipe(Recipe):
    network_class = nn.Cell


@pytest.fixture
def recipe_of(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for split, shapes in (("train", [(9, 9)]), ("val", [(20, 30), (40, 60), (31, 17)])):
            (tmp_path / split / name).mkdir(parents=True)
            for number, shape in enumerate(shapes):
                pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")

    def make(**keys):
        keys = {"train_crop": "random_resized", "image_size": 12, "eval_batch_size": 4, **keys}
        return AnyRecipe(check({"data_path": str(tmp_path), **keys}, SharedConfig))

    return make


class Modes(list):
    """A stand-in for a network, which keeps the mode and the shape of each call."""

    def set_train(self, mode):
        assert not mode

    def __call__(self, images):
        self.append((ms.get_context("mode"), images.shape))
        return images.mean((2, 3))[:, :2]


@pytest.mark.usefixtures("graph_mode")
def test_whole_pictures_run_without_a_graph(recipe_of):
    recipe, network = recipe_of(eval_crop="whole", eval_image_size=24), Modes()
    batches = recipe.eval_batches()
    assert not batches.one_shape and batches.whole_multiple == recipe.side_multiple == 1
    found = evaluate_network(network, Pixels((0, 0, 0), (1, 1, 1)), batches, num_classes=2, tta="flip")
    assert found.metrics["count"] == 6
    one_class = [(2, 3, 16, 24), (1, 3, 24, 13)]
    assert network == [(ms.PYNATIVE_MODE, shape) for shape in one_class * 2 for _ in range(2)]
    assert ms.get_context("mode") == ms.GRAPH_MODE


@pytest.mark.usefixtures("graph_mode")
def test_batches_of_one_shape_keep_theirs(recipe_of):
    batches, network = recipe_of().eval_batches(), Modes()
    assert batches.one_shape
    evaluate_network(network, Pixels((0, 0, 0), (1, 1, 1)), batches, num_classes=2)
    assert network == [(ms.GRAPH_MODE, (4, 3, 12, 12))] * 2


@pytest.mark.usefixtures("graph_mode")
def test_an_export_of_a_model_evaluated_whole_takes_squares(recipe_of, monkeypatch):
    recipe = recipe_of(eval_crop="whole", crop_percentage=0.5)
    assert (recipe.preparation.crop, recipe.preparation.crop_percentage) == ("centre", 0.5)
    monkeypatch.setattr(trained, "create_recipe", Recipe)
    monkeypatch.setattr(trained, "evaluated_recipe", lambda opened: opened.recipe)
    assert trained.some_images(SimpleNamespace(recipe=recipe)).shape == (4, 3, 12, 12)


@pytest.mark.usefixtures("graph_mode")
def test_the_mode_comes_back_after_an_error():
    with pytest.raises(KeyError), without_graph():
        assert ms.get_context("mode") == ms.PYNATIVE_MODE
        raise KeyError
    assert ms.get_context("mode") == ms.GRAPH_MODE


class WithDamage:
    """Batches of a shard whose source could not read some images of the set."""

    def __init__(self, images, labels, damaged, *, start=0, batch_size=4):
        self.source = SimpleNamespace(damaged={})
        self._damaged, self._batches = damaged, _batches(images, labels, batch_size)
        self.numbers = np.arange(start, start + len(images))

    def __iter__(self):
        for batch in self._batches:
            self.source.damaged |= self._damaged  # known when the batch is read, and of later ones, too
            yield batch


def test_damaged_images_are_counted_and_in_no_figure():
    """Old behaviour: the first one ended the evaluation, with `damaged_images` skip as well."""
    images, labels = _data(images=23)
    network, seen = Linear(images.shape[1:], 6), []
    damaged = dict.fromkeys((0, 9, 12, 13, 14, 15), "cut short")
    found = evaluate(
        network, WithDamage(images, labels, damaged), num_classes=6, worst=30,
        each=lambda *given: seen.append(given),
    )  # fmt: skip
    whole = [index for index in range(23) if index not in damaged]
    expected = evaluate(network, _batches(images[whole], labels[whole], 4), num_classes=6, worst=30)
    # The batches are others, and so are the roundings of their losses.
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-12)
    assert found.metrics["count"] == 17 and found.damaged == 6
    np.testing.assert_array_equal(found.totals.confusion, expected.totals.confusion)
    assert [index for batch, _ in seen for index in batch.indices] == whole
    assert [m.index for m in found.mistakes] == [whole[m.index] for m in expected.mistakes]


def test_damaged_images_of_all_ranks_are_counted_once():
    """A rank may have met damage beyond its own shard, where it looked for another image."""
    images, labels = _data(images=12)
    network, damaged = Linear(images.shape[1:], 6), dict.fromkeys((5, 6, 7), "cut short")
    sums = []
    for part in (slice(0, 6), slice(6, 12)):
        batches = WithDamage(images[part], labels[part], damaged, start=part.start, batch_size=3)
        evaluate(network, batches, num_classes=6, reduce=lambda v: sums.append(v) or v)
    assert [int(counts[-2]) for counts in sums[1::2]] == [1, 2]
