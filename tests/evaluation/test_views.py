# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation against the formulas of its sources, for every image, on one rank and on several."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.batches import EvalBatches
from src.data.binary import ImageSet
from src.data.preparation import Preparation
from src.evaluation.evaluate import EvaluationStopped, answers, evaluate
from src.evaluation.metrics import score
from src.evaluation.views import TTA, confidence, views_per_image
from src.model_utils.config import check
from src.shared_config import SharedConfig
from tests.helpers.pictures import Pictures, noise

COUNT, CLASSES = 41, 6
HOW = Preparation(32, (120.0, 110.0, 100.0), (60.0, 50.0, 40.0))


def network(images):
    """Float32 (B, 3, H, W) or uint8 (B, H, W, 3) -> (B, 6); every pixel's place counts."""
    planes = images.transpose(0, 3, 1, 2) / 64 if images.dtype == np.uint8 else images
    weights = np.random.default_rng(7).normal(size=(planes[0].size, CLASSES)) / 40
    return (np.tanh(planes.reshape(len(planes), -1)) @ weights).astype(np.float32)


def mirrored(images):
    return images[:, :, ::-1] if images.dtype == np.uint8 else images[..., ::-1]


def moved(images, down):
    """airbench: padded by reflection, and cut out at the upper left (0) or the lower right (2)."""
    width = ((0, 0), (1, 1), (1, 1), (0, 0)) if images.dtype == np.uint8 else ((0, 0), (0, 0), (1, 1), (1, 1))
    padded = np.pad(images, width, mode="reflect")
    height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
    rows, columns = slice(down, down + height), slice(down, down + width)
    return padded[:, rows, columns] if images.dtype == np.uint8 else padded[:, :, rows, columns]


def of(images):
    return network(np.ascontiguousarray(images)).astype(np.float64)


def infer_mirror(images):
    return 0.5 * of(images) + 0.5 * of(mirrored(images))


def airbench(images):
    further = (infer_mirror(moved(images, 0)) + infer_mirror(moved(images, 2))) / 2
    return 0.5 * infer_mirror(images) + 0.5 * further


def hiverge(images):
    base = images, moved(images, 0), moved(images, 2)
    return np.mean([of(view) for view in (*base, *map(mirrored, base))], axis=0)


SOURCES = {"none": of, "flip": infer_mirror, "six": airbench, "six_equal": hiverge}


@pytest.mark.parametrize("shape", [(7, 32, 32, 3), (5, 9, 4, 3), (4, 3, 32, 32), (3, 3, 2, 11)])
@pytest.mark.parametrize("tta", SOURCES)
def test_views_are_averaged_as_in_their_sources(tta, shape):
    rng = np.random.default_rng(3)
    is_bytes = shape[-1] == 3
    images = rng.integers(0, 256, shape, np.uint8) if is_bytes else rng.normal(size=shape).astype(np.float32)
    (found,) = answers(network, [(images, np.zeros(len(images), int), len(images))], tta=tta)
    np.testing.assert_allclose(found.outputs, SOURCES[tta](images), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.plain, of(images))
    assert sum(view.weight for view in TTA[tta]) == pytest.approx(1)
    others = [SOURCES[other](images) for other in SOURCES if other != tta]
    assert all(np.abs(found.outputs - other).max() > 1e-3 for other in others)


def test_the_views_of_bytes_are_those_of_numbers():
    images = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), np.uint8)
    numbers = np.stack([HOW.normalise(image) for image in images])

    def of_bytes(some):
        return network(np.stack([HOW.normalise(image) for image in some]))

    labels = np.zeros(6, int)
    (first,), (second,) = (
        answers(predict, [(given, labels, 6)], tta="six")
        for predict, given in ((of_bytes, images), (network, numbers))
    )
    np.testing.assert_array_equal(first.outputs, second.outputs)


# --- the least confident share


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
    return ImageSet(pixels, rng.integers(CLASSES, size=COUNT, dtype=np.int32), tuple("abcdef"))


def on_ranks(size, evaluation):
    """What evaluation(rank, reduce) gives on each of `size` ranks, which wait for each other in `reduce`."""
    barrier, parts = threading.Barrier(size, timeout=60), [None] * size

    def reduce_of(rank):
        def reduce(vector):
            parts[rank] = vector
            barrier.wait()
            total = sum(parts)
            barrier.wait()
            return total

        return reduce

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: evaluation(rank, reduce_of(rank)), range(size)))


@pytest.mark.parametrize(("size", "batch_size", "normalised"), [(1, 8, True), (1, 64, False), (3, 5, True)])
@pytest.mark.parametrize(("tta", "share"), [("six_equal", 0.25), ("flip", 0.5)])
def test_the_least_confident_share_of_all_images_gets_all_views(
    images, size, batch_size, normalised, tta, share
):
    calls, order, said = [], [], np.full((COUNT, CLASSES), np.nan)

    def predict(batch):
        calls.append(len(batch))
        return network(batch)

    def keep(batch, scores):
        order.extend(batch.indices.tolist())
        said[batch.indices] = batch.outputs

    def evaluation(rank, reduce):
        batches = EvalBatches(images, HOW, batch_size=batch_size, normalised=normalised, rank=rank, size=size)
        how = {"num_classes": CLASSES, "tta": tta, "tta_share": share, "reduce": reduce, "worst": 9}
        return evaluate(predict, batches, **how, each=keep)

    found = on_ranks(size, evaluation)
    given = HOW.normalise.planes(images.images) if normalised else images.images.transpose(0, 2, 3, 1)
    plain = of(given)
    sure = np.exp(plain).max(axis=1) / np.exp(plain).sum(axis=1)
    chosen = np.argsort(sure)[: round(share * COUNT)]
    expected = plain.copy()
    expected[chosen] = SOURCES[tta](given[chosen])
    assert sorted(order) == list(range(COUNT)) and (size > 1 or order == sorted(order))
    np.testing.assert_allclose(said, expected, rtol=1e-6)
    figures = {"count": COUNT}
    for suffix, logits in (("", expected), ("_plain", plain)):
        scores = score(logits, images.labels)
        figures[f"top1{suffix}"] = 100 * np.mean(scores.place < 1)
        figures[f"top5{suffix}"] = 100 * np.mean(scores.place < 5)
        figures[f"loss{suffix}"] = scores.loss.mean()
    assert figures["loss"] != pytest.approx(figures["loss_plain"], rel=1e-5)
    for evaluation in found:
        assert evaluation.metrics == pytest.approx(figures)
        assert evaluation.totals.confusion.sum() == COUNT
        assert len(evaluation.mistakes) > 3
        for mistake in evaluation.mistakes:
            np.testing.assert_array_equal(mistake.image, given[mistake.index])
            assert mistake.prediction == expected[mistake.index].argmax() != images.labels[mistake.index]
    if size == 1:
        passes = sum(calls) / batch_size - -(-COUNT // batch_size)
        assert passes == (len(TTA[tta]) - 1) * -(-len(chosen) // batch_size)


def test_whole_pictures_of_many_shapes_have_views_too():
    shapes = [(20, 20), (20, 11), (20, 11), (9, 20), (20, 20), (1, 20), (9, 20), (9, 20)]
    source = Pictures([noise(*shape, seed) for seed, shape in enumerate(shapes)], class_names=tuple("abcdef"))
    how = Preparation(20, (120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
    batches, said = EvalBatches(source, how, batch_size=3, whole_multiple=1), []
    named = {"num_classes": CLASSES, "tta": "six", "each": lambda batch, _: said.extend(batch.outputs)}
    evaluate(network, batches, tta_share=0.5, **named)
    pictures = [how.normalise(picture)[None] for picture in source.pictures]
    plain = np.concatenate([of(picture) for picture in pictures])
    chosen = set(np.argsort(confidence(plain))[:4].tolist())
    expected = [(airbench if k in chosen else of)(picture)[0] for k, picture in enumerate(pictures)]
    np.testing.assert_allclose(said, expected, rtol=1e-6)


def test_views_of_a_share_are_counted():
    assert [views_per_image(tta, 1) for tta in TTA] == [1, 2, 6, 6]
    assert views_per_image("six_equal", 0.25) == 2.25


def test_equally_sure_images_are_chosen_in_their_order(images):
    batches, said = EvalBatches(images, HOW, batch_size=16), []

    def predict(batch):
        return np.where(np.arange(CLASSES) == 2, 40.0, batch[:, :1, 0, 0])

    how = {"num_classes": CLASSES, "tta": "flip", "each": lambda batch, _: said.append(batch)}
    evaluate(predict, batches, tta_share=0.2, **how)
    changed = np.concatenate([(batch.outputs != batch.plain).any(axis=1) for batch in said])
    assert np.flatnonzero(changed).tolist() == list(range(8))


def test_what_predicts_nothing_is_least_sure():
    inf, nan = np.inf, np.nan
    logits = np.array([[nan, 0], [inf, 1], [-inf, -inf], [-inf, 3], [0, 0]], float)
    np.testing.assert_array_equal(confidence(logits), [0, 0, 0, 1, 0.5])


def test_a_stop_of_one_rank_in_the_first_look_ends_the_evaluation_of_all(images):
    def evaluation(rank, reduce):
        batches = EvalBatches(images, HOW, batch_size=4, rank=rank, size=2)
        how = {"num_classes": CLASSES, "tta": "six", "tta_share": 0.5, "reduce": reduce}
        with pytest.raises(EvaluationStopped):
            evaluate(network, batches, **how, between=lambda: rank == 1)
        return True

    assert on_ranks(2, evaluation) == [True, True]


def test_damaged_images_are_in_no_share(images):
    class Source:
        damaged, labels, class_names = {}, images.labels, images.class_names

        def read(self, index, plan):
            if index % 2:
                self.damaged[index] = "cut short"
            return images.read(index, plan)

    how = {"num_classes": CLASSES, "tta": "six_equal", "tta_share": 0.25}
    found = evaluate(network, EvalBatches(Source(), HOW, batch_size=8), **how)
    whole = evaluate(network, EvalBatches(images.take(range(0, COUNT, 2)), HOW, batch_size=8), **how)
    assert found.metrics == pytest.approx(whole.metrics) and found.damaged == COUNT // 2


def test_a_share_of_one_view_is_refused():
    with pytest.raises(UserError, match=r"tta_share: 0\.25 given, allowed: 1 with tta none"):
        check({"tta_share": 0.25}, SharedConfig)
    assert check({"tta_share": 0.25, "tta": "six_equal"}, SharedConfig).tta_share == 0.25
