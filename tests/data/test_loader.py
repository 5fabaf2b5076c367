import threading

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.binary import ImageSet
from src.data.loader import EvalBatches, TrainBatches
from tests.helpers.batches import pool_threads, same

MEAN, STD = (100.0, 120.0, 140.0), (50.0, 60.0, 70.0)
PLAIN = {"crop_pad": 0, "flip": "none", "cutout": 0}


def train(images, **settings):
    return TrainBatches(images, **{"batch_size": 4, "seed": 5, "mean": MEAN, "std": STD, **settings})


def evaluation(images, **settings):
    return EvalBatches(images, mean=MEAN, std=STD, **settings)


def numbered(count, classes=7):
    """Images that say their own number: all the pixels of image k are k."""
    numbers = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (count, 3, 32, 32))
    labels = (np.arange(count) % classes).astype(np.int32)
    return ImageSet(np.ascontiguousarray(images), labels, tuple("abcdefg"[:classes]))


def numbers_of(images):
    return np.rint(images[:, 0, 0, 0] * STD[0] + MEAN[0]).astype(int).tolist()


def normalised(images):
    return (images - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))


def test_shapes_and_types(make_set):
    batches = train(make_set(10), label_smoothing=0.1)
    images, targets = batches.batch(0, 0)
    assert images.shape == (4, 3, 32, 32) and images.dtype == np.float32 and images.flags.c_contiguous
    assert targets.shape == (4, 10) and targets.dtype == np.float32
    images, labels = train(make_set(10)).batch(0, 0)
    assert labels.shape == (4,) and labels.dtype == np.int32
    np.testing.assert_array_equal(targets.argmax(1), labels)
    assert len(batches) == 2
    assert batches.class_names == make_set(10).class_names and len(batches.source) == 10


def test_without_augmentation_a_batch_is_the_normalised_images():
    data = numbered(12)
    images, labels = train(data, **PLAIN).batch(3, 1)
    chosen = numbers_of(images)
    np.testing.assert_allclose(images, normalised(data.images[chosen]), atol=1e-6)
    np.testing.assert_array_equal(labels, data.labels[chosen])


@pytest.mark.parametrize("settings", [{}, {"flip": "alternating", "translate": 2, "mixup_alpha": 0.4}])
def test_a_batch_is_a_function_of_seed_epoch_and_index(make_set, settings):
    first, second = (train(make_set(12), **settings) for _ in range(2))
    later = second.batch(2, 1)
    assert same(first.batch(0, 0), second.batch(0, 0))
    assert same(first.batch(2, 1), later)
    assert not np.array_equal(first.batch(2, 0)[0], later[0])
    assert not np.array_equal(first.batch(0, 1)[0], later[0])
    assert not np.array_equal(train(make_set(12), seed=6, **settings).batch(2, 1)[0], later[0])


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    batches = train(numbered(12), **PLAIN)
    orders = [[n for k in range(3) for n in numbers_of(batches.batch(e, k)[0])] for e in range(4)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_global_batch_of_one_rank(make_set, size):
    data = make_set(40)
    settings = {"translate": 2, "label_smoothing": 0.1, "flip": "alternating"}
    whole = train(data, batch_size=4 * size, **settings)
    parts = [train(data, rank=rank, size=size, **settings) for rank in range(size)]
    assert all(len(part) == len(whole) == 40 // (4 * size) for part in parts)
    for epoch in range(2):
        for index in range(len(whole)):
            joined = [
                np.concatenate(both) for both in zip(*(p.batch(epoch, index) for p in parts), strict=True)
            ]
            assert same(joined, whole.batch(epoch, index))


def test_ranks_take_disjoint_images_that_are_the_epoch():
    parts = [train(numbered(27), rank=rank, size=3, **PLAIN) for rank in range(3)]
    seen = [n for part in parts for k in range(len(part)) for n in numbers_of(part.batch(1, k)[0])]
    assert len(seen) == len(set(seen)) == 24


def test_ranks_draw_their_own_mixup(make_set):
    data = make_set(1)
    data = ImageSet(np.repeat(data.images, 8, 0), np.arange(8, dtype=np.int32), tuple("abcdefgh"))
    parts = [train(data, rank=rank, size=2, mixup_alpha=1.0) for rank in range(2)]
    weights = [np.sort(part.batch(0, 0)[1].max(1))[0] for part in parts]
    assert weights[0] != weights[1]


def test_crop_shows_every_offset_of_the_reflected_image():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 4, (3, 32, 32))
    data = ImageSet(np.stack([ramp] * 600), np.zeros(600, np.int32), ("a",))
    images, _ = train(data, batch_size=600, crop_pad=4, flip="none", cutout=0).batch(0, 0)
    rows = np.rint(images[:, 0, :, 0] * STD[0] + MEAN[0]).astype(int) // 4
    reflected = [*range(4, 0, -1), *range(32), *range(30, 26, -1)]
    shown = {tuple(image) for image in rows}
    assert shown == {tuple(reflected[top : top + 32]) for top in range(9)}


def test_random_flip_turns_about_half(make_set):
    data = make_set(200)
    batches = train(data, batch_size=200, **{**PLAIN, "flip": "random"})
    epochs = [flipped_images(batches.batch(epoch, 0)[0], data) for epoch in range(2)]
    assert all(60 < len(flipped) < 140 for flipped in epochs)
    assert epochs[0] != epochs[1]


def test_alternating_flip_turns_each_image_in_every_second_epoch(make_set):
    data = make_set(50)
    batches = train(data, batch_size=50, **{**PLAIN, "flip": "alternating"})
    epochs = [flipped_images(batches.batch(epoch, 0)[0], data) for epoch in range(4)]
    assert epochs[0] == epochs[2] and epochs[1] == epochs[3] == set(range(50)) - epochs[0]
    assert 10 < len(epochs[0]) < 40


def flipped_images(images, data):
    """Which images of the data set are mirrored in a batch that holds them all."""
    place = {
        normalised(image).astype(np.float32)[0, 0].round(3).tobytes(): k
        for k, image in enumerate(data.images)
    }
    turned = {image[0, 0, ::-1].round(3).tobytes() for image in images}
    straight = {image[0, 0].round(3).tobytes() for image in images}
    flipped = {k for key, k in place.items() if key in turned}
    assert flipped.isdisjoint({k for key, k in place.items() if key in straight})
    return flipped


def test_batches_and_ranks_are_augmented_differently(make_set):
    image = make_set(1)
    data = ImageSet(np.repeat(image.images, 16, 0), np.zeros(16, np.int32), ("a",))
    batches = train(data, translate=2)
    parts = [batches.batch(0, 0)[0], batches.batch(0, 1)[0], batches.batch(1, 0)[0]]
    parts.append(train(data, translate=2, rank=1, size=2).batch(0, 0)[0])
    images = np.concatenate(parts).reshape(16, -1)
    assert len(np.unique(images, axis=0)) == 16


def test_cutout_reaches_every_border():
    data = ImageSet(np.full((600, 3, 32, 32), 255, np.uint8), np.zeros(600, np.int32), ("a",))
    images, _ = train(data, batch_size=600, **{**PLAIN, "cutout": 8}).batch(0, 0)
    holes = images[:, 0] == 0
    tops, lefts = holes.any(2).argmax(1), holes.any(1).argmax(1)
    assert set(tops) == set(lefts) == set(range(25))


def test_cutout_makes_one_hole_of_the_mean_colour():
    data = numbered(20)
    images, _ = train(data, batch_size=20, **{**PLAIN, "cutout": 8}).batch(0, 0)
    for image in images:
        rows, columns = np.nonzero((image == 0).all(0))
        assert len(rows) == 64 and np.ptp(rows) == np.ptp(columns) == 7


def test_translate_uncovers_the_mean_colour():
    images, _ = train(numbered(20), batch_size=20, **{**PLAIN, "translate": 3}).batch(0, 0)
    for image in images:
        rows, columns = np.nonzero((image != 0).all(0))
        assert np.ptp(rows) >= 28 and np.ptp(columns) >= 28
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert (images == 0).any()


def test_mixup_mixes_images_and_targets_with_the_same_weight():
    data = numbered(20, classes=5)
    images, targets = train(data, batch_size=20, **PLAIN, mixup_alpha=1.0, label_smoothing=0.1).batch(0, 0)
    plain, hard = train(data, batch_size=20, **PLAIN, label_smoothing=0.1).batch(0, 0)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    # Each image is on the line from its own number to a partner's, as far along it as its target is.
    values, own = images[:, 0, 0, 0], plain[:, 0, 0, 0]
    weights = set()
    for k in range(20):
        partners = [
            (weight, j)
            for j in range(20)
            if j != k and own[j] != own[k]
            for weight in [(values[k] - own[j]) / (own[k] - own[j])]
            if np.allclose(targets[k], weight * hard[k] + (1 - weight) * hard[j], atol=1e-4)
        ]
        assert partners or np.allclose(values[k], own[k], atol=1e-5)
        weights.update(round(float(weight), 3) for weight, _ in partners if 0 < weight < 1)
    assert weights


def test_switching_one_operation_leaves_the_others_as_they_were(make_set):
    data = make_set(8)
    with_hole, _ = train(data, batch_size=8, cutout=8).batch(0, 0)
    without, _ = train(data, batch_size=8, cutout=0).batch(0, 0)
    kept = with_hole != 0
    np.testing.assert_array_equal(with_hole[kept], without[kept])


def test_steps_go_on_over_epochs_and_from_the_middle_of_one(make_set):
    batches = train(make_set(12))
    steps = list(batches.batches(0, 8))
    assert len(steps) == 8
    assert all(same(step, batches.batch(*divmod(k, 3))) for k, step in enumerate(steps))
    resumed = list(train(make_set(12)).batches(4, 8))
    assert all(same(a, b) for a, b in zip(resumed, steps[4:], strict=True))
    assert list(batches.batches(5, 5)) == []


def test_the_next_batch_is_prepared_meanwhile_by_a_thread_that_ends(make_set, monkeypatch):
    batches = train(make_set(12))
    original, prepared, second = batches.batch, [], threading.Event()

    def record(epoch, index):
        prepared.append((epoch, index, threading.current_thread().name))
        if len(prepared) == 2:
            second.set()
        return original(epoch, index)

    monkeypatch.setattr(batches, "batch", record)
    steps = batches.batches(0, 100)
    next(steps)
    assert second.wait(timeout=10)
    assert [entry[:2] for entry in prepared] == [(0, 0), (0, 1)]
    assert all(name.startswith("batches") for *_, name in prepared)
    steps.close()
    assert pool_threads() == [] and len(prepared) == 2


def test_an_exception_of_the_thread_reaches_the_caller(make_set, monkeypatch):
    batches = train(make_set(12))
    original = batches.batch

    def fail_at_four(epoch, index):
        if (epoch, index) == (1, 1):
            raise RuntimeError("broken image")
        return original(epoch, index)

    monkeypatch.setattr(batches, "batch", fail_at_four)
    steps, received = batches.batches(0, 10), 0
    with pytest.raises(RuntimeError, match="broken image"):
        for _ in steps:
            received += 1
    assert received == 4 and pool_threads() == []


def test_the_image_set_is_not_changed(make_set):
    data, untouched = make_set(12), make_set(12)
    for settings in (PLAIN, {"translate": 2, "mixup_alpha": 1.0}):
        list(train(data, **settings).batches(0, 4))
    list(evaluation(data, batch_size=5))
    np.testing.assert_array_equal(data.images, untouched.images)
    np.testing.assert_array_equal(data.labels, untouched.labels)


@pytest.mark.parametrize(("count", "batch_size", "size"), [(12, 13, 1), (5, 8, 2), (1, 3, 1), (4, 4, 3)])
def test_a_small_set_fills_one_batch_an_epoch_evenly(count, batch_size, size, caplog):
    with caplog.at_level("WARNING", logger="quartet"):
        parts = [
            train(numbered(count), batch_size=batch_size, rank=rank, size=size, **PLAIN)
            for rank in range(size)
        ]
    assert [f"{count} images" in line for line in caplog.messages] == [True] * size
    assert all(len(part) == 1 for part in parts)
    orders = set()
    for epoch in range(6):
        order = [n for part in parts for n in numbers_of(part.batch(epoch, 0)[0])]
        total = batch_size * size
        assert len(order) == total
        assert set(np.bincount(order, minlength=count)) <= {total // count, -(-total // count)}
        for start in range(0, total, count):  # each round is a permutation, the last one a part of it
            shown = order[start : start + count]
            assert len(set(shown)) == len(shown)
        orders.add(tuple(order))
    assert len(orders) > 1 or count == 1


def test_a_small_set_goes_on_from_any_step(make_set):
    batches = train(make_set(3))
    steps = list(batches.batches(0, 5))
    assert all(same(step, batches.batch(epoch, 0)) for epoch, step in enumerate(steps))
    assert all(same(a, b) for a, b in zip(batches.batches(3, 5), steps[3:], strict=True))


def test_a_full_batch_is_not_announced_and_an_empty_set_is_refused(make_set, caplog):
    assert len(train(make_set(12), batch_size=12)) == 1 and not caplog.messages
    with pytest.raises(UserError, match="no images"):
        train(make_set(0))


def test_mixup_per_image_mixes_each_image_with_the_next():
    data = numbered(20, classes=5)
    settings = {"batch_size": 10, "mixup_alpha": 1.0, "mixup_per_image": True, "label_smoothing": 0.1}
    images, targets = train(data, **PLAIN, **settings).batch(0, 1)
    plain, hard = train(data, **PLAIN, batch_size=10, label_smoothing=0.1).batch(0, 1)
    weights = []
    for k in range(10):
        own, partner = plain[k, 0, 0, 0], plain[(k + 1) % 10, 0, 0, 0]
        weight = (images[k, 0, 0, 0] - partner) / (own - partner)
        np.testing.assert_allclose(
            images[k], weight * plain[k] + (1 - weight) * plain[(k + 1) % 10], atol=1e-4
        )
        np.testing.assert_allclose(
            targets[k], weight * hard[k] + (1 - weight) * hard[(k + 1) % 10], atol=1e-4
        )
        weights.append(round(float(weight), 3))
    assert len(set(weights)) == 10 and all(-1e-3 <= weight <= 1 + 1e-3 for weight in weights)


def stamp(image, rng):
    """Instead of RandAugment: keeps the image, except for a random number in its first pixel."""
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    image = image.copy()
    image[0, 0] = rng.integers(0, 256, 3)
    return image


def test_randaugment_sees_the_cropped_and_flipped_image_and_draws_for_each(make_set):
    data = make_set(24)
    settings = {"flip": "random", "cutout": 0, "crop_pad": 4}
    plain = np.concatenate([train(data, **settings).batch(1, k)[0] for k in range(6)])
    batches = train(data, operations=[(7, stamp)], **settings)
    changed = np.concatenate([batches.batch(1, k)[0] for k in range(6)])
    stamps = changed[:, :, 0, 0].copy()
    assert (stamps != plain[:, :, 0, 0]).any(1).all()
    changed[:, :, 0, 0] = plain[:, :, 0, 0]
    np.testing.assert_array_equal(changed, plain)
    assert len(np.unique(stamps, axis=0)) == 24
    assert same(batches.batch(1, 2), train(data, operations=[(7, stamp)], **settings).batch(1, 2))
    parts = [train(data, operations=[(7, stamp)], batch_size=2, rank=r, size=2, **settings) for r in range(2)]
    joined = np.concatenate([part.batch(1, 2)[0] for part in parts])
    np.testing.assert_array_equal(joined, batches.batch(1, 2)[0])


def test_an_unknown_flip_and_a_batch_beyond_the_epoch_are_refused(make_set):
    with pytest.raises(ValueError, match="flip"):
        train(make_set(12), flip="both")
    with pytest.raises(IndexError):
        train(make_set(12)).batch(0, 3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 13])
def test_evaluation_counts_every_image_once(count, size, batch_size):
    data = numbered(count)
    seen = []
    for rank in range(size):
        batches = evaluation(data, batch_size=batch_size, rank=rank, size=size)
        rows = list(batches)
        assert len(rows) == len(batches)
        for images, labels, valid in rows:
            assert images.shape == (batch_size, 3, 32, 32) and images.dtype == np.float32
            assert labels.shape == (batch_size,) and labels.dtype == np.int32
            assert 1 <= valid <= batch_size
            assert not images[valid:].any() and not labels[valid:].any()
            numbers = numbers_of(images[:valid])
            np.testing.assert_array_equal(labels[:valid], data.labels[numbers])
            np.testing.assert_allclose(images[:valid], normalised(data.images[numbers]), atol=1e-6)
            seen += numbers
    assert seen == list(range(count))


def test_evaluation_can_be_repeated(make_set):
    batches = evaluation(make_set(5), batch_size=2)
    assert all(same(a[:2], b[:2]) and a[2] == b[2] for a, b in zip(batches, batches, strict=True))
    assert batches.class_names == make_set(5).class_names and len(batches.source) == 5
