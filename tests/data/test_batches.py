# SPDX-License-Identifier: Apache-2.0
"""Batches for training as functions of the step, mixtures, and evaluation of every image exactly once."""

import threading

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.augment.colour import ColourChange
from src.data.augment.erasing import Erasing
from src.data.batches import EvalBatches
from src.data.binary import ImageSet
from src.data.crops import PadCrops, PictureCrops
from src.data.normalise import Normalise
from src.data.preparation import Preparation
from tests.helpers.batches import pool_threads, same, train_batches
from tests.helpers.pictures import Pictures, noise

MEAN, STD = (100.0, 120.0, 140.0), (50.0, 60.0, 70.0)
CLASSES = tuple("abcde")
SHAPES = [(20, 30), (31, 17), (1, 40), (12, 12), (3, 2)]


def flash(image, rng):
    return image ^ rng.bytes(1)[0]


def drawn(count=26):
    return Pictures([noise(*SHAPES[k % 5], seed=k) for k in range(count)], class_names=CLASSES)


def image_set(count=26):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8)
    return ImageSet(images, np.arange(count, dtype=np.int32) % 5, CLASSES)


def small(data=None, **settings):
    return train_batches(PadCrops, data or image_set(), Normalise(MEAN, STD), **settings)


def pictures(source=None, side=8, **settings):
    return train_batches(PictureCrops, source or drawn(), side, **{"workers": 2, **settings})


# Every batch is 32x32 or 12x12 pixels, and each operation and crop is in one of these.
KINDS = {
    "small": (small, {}),
    "small_busy": (small, {
        "flip": "alternating", "translate": 2, "operations": [(7, flash)], "brightness_jitter": 0.1,
        "contrast_jitter": 0.2,
    }),
    "resized": (pictures, {"train_crop": "resize", "resize_size": 10, "operations": [(7, flash)]}),
    "cropped": (pictures, {
        "flip": "alternating", "interpolation": "bicubic",
        "colour": ColourChange(jitter=(0.4, 0.4, 0.4, 0.1)),
        "erasing": Erasing(probability=0.6, noise=True, mean=MEAN, std=STD),
    }),
}  # fmt: skip
MIXED = {"mixup_alpha": 0.5, "cutmix_alpha": 0.5, "label_smoothing": 0.1}


def test_shapes_and_types():
    images, labels = small().batch(0, 0)
    assert images.shape == (4, 3, 32, 32) and images.dtype == np.float32 and images.flags.c_contiguous
    assert labels.shape == (4,) and labels.dtype == np.int32
    images, targets = pictures(label_smoothing=0.1).batch(0, 0)
    assert images.shape == (4, 8, 8, 3) and images.dtype == np.uint8 and images.flags.c_contiguous
    assert targets.shape == (4, 5) and targets.dtype == np.float32
    np.testing.assert_array_equal(targets.argmax(1), labels)
    images, targets, partners, weights = pictures(mixup_alpha=0.3, normalise=Normalise(MEAN, STD)).batch(0, 0)
    assert images.shape == (4, 3, 8, 8) and images.dtype == targets.dtype == weights.dtype == np.float32
    assert partners.dtype == np.int32 and partners.shape == weights.shape == (4,)
    batches = pictures(drawn(10))
    assert len(batches) == 2 and batches.class_names == CLASSES and not batches.soft_labels
    assert all(small(**{name: 0.1}).soft_labels for name in MIXED)


@pytest.mark.parametrize("mixed", [{}, MIXED])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_epoch_and_index(kind, mixed):
    """Alone, among others, from the middle of a run, by any number of workers."""
    make, settings = KINDS[kind]
    source = image_set() if make is small else drawn()
    if make is pictures:
        source.slow = {3, 11, 12}
    settings = {**settings, **mixed}
    batches = make(source, **settings)
    steps = list(batches.batches(0, 14))
    assert len(steps) == 14 and len(batches) == 6
    assert all(same(step, batches.batch(*divmod(k, 6))) for k, step in enumerate(steps))
    for workers in (1, 3, 8):
        resumed = list(make(source, workers=workers, **settings).batches(9, 14))
        assert all(same(a, b) for a, b in zip(resumed, steps[9:], strict=True))
    other_seed = make(source, seed=6, **settings).batch(1, 3)[0]
    assert not any(np.array_equal(other, steps[9][0]) for other in (steps[3][0], steps[8][0], other_seed))
    assert list(batches.batches(5, 5)) == [] and pool_threads() == []


@pytest.mark.parametrize("repetitions", [1, 2])
@pytest.mark.parametrize("mixed", [{}, MIXED, {**MIXED, "per_image": True}])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_the_global_batch_of_one_rank(kind, size, mixed, repetitions):
    """Old behaviour: partners, weights and rectangles were drawn for each rank."""
    make, settings = KINDS[kind]
    settings = {**settings, **mixed, "repetitions": repetitions}
    whole = make(batch_size=4 * size, **settings)
    parts = [make(rank=rank, size=size, **settings) for rank in range(size)]
    mixups = 0
    for epoch in range(3):
        for index in range(len(whole)):
            batch = whole.batch(epoch, index)
            shares = [part.batch(epoch, index) for part in parts]
            if mixed:
                shares = [
                    (images, targets, partners + 4 * rank, weights)  # as rows of the whole
                    for rank, (images, targets, partners, weights) in enumerate(shares)
                ]
                mixups += (batch[3] < 1).all()
            assert same([np.concatenate(share) for share in zip(*shares, strict=True)], batch)
    assert bool(mixups) == bool(mixed)


def check_cutmix(images, targets, plain, hard, partners):
    """Each image is its own outside one box and its partner's inside, and its target is as the areas are."""
    mixed = 0
    for image, target, own, label, partner in zip(images, targets, plain, hard, partners, strict=True):
        hole = (image != own).any(2)
        np.testing.assert_array_equal(image[hole], plain[partner][hole])
        np.testing.assert_allclose(target, label + (hard[partner] - label) * hole.mean(), atol=1e-5)
        if hole.any():
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            mixed += 1
    return mixed


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("make", [small, pictures])
def test_cutmix_mixes_rectangles_and_the_targets_by_their_area(make, per_image):
    mixed, settings = 0, {"batch_size": 8, "label_smoothing": 0.1}
    if make is small:
        settings["cutout"] = 0
    for index in range(3):
        plain, hard = make(**settings).batch(1, index)
        images, targets = make(**settings, cutmix_alpha=1.0, per_image=per_image).batch(1, index)
        assert targets.dtype == np.float32 and images.dtype == plain.dtype and images.flags.c_contiguous
        if make is small:
            plain, images = plain.transpose(0, 2, 3, 1), images.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        mixed += check_cutmix(images, targets, plain, hard, [1, 0, 3, 2, 5, 4, 7, 6])
    assert mixed >= 8


@pytest.mark.parametrize("make", [small, pictures])
@pytest.mark.parametrize("per_image", [False, True])
def test_mixup_leaves_pixels_to_the_device_and_mixes_the_targets(per_image, make):
    settings = {"batch_size": 10, "label_smoothing": 0.1}
    plain, hard = make(**settings).batch(1, 1)
    batches = make(**settings, mixup_alpha=0.5, per_image=per_image)
    images, targets, partners, weights = batches.batch(1, 1)
    np.testing.assert_array_equal(images, plain)
    assert partners.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8] and ((weights >= 0) & (weights <= 1)).all()
    weights = weights[:, None]
    np.testing.assert_allclose(targets, weights * hard + (1 - weights) * hard[partners], atol=1e-6)
    assert len(set(weights.ravel())) == (10 if per_image else 1)
    assert not np.array_equal(batches.batch(1, 0)[3], weights.ravel())


def test_with_mixup_and_cutmix_each_batch_has_one_of_them():
    plain, both, mixup = (
        pictures(label_smoothing=0.1),
        pictures(**MIXED),
        pictures(mixup_alpha=0.5, label_smoothing=0.1),
    )
    cut = 0
    for epoch in range(40):
        images, targets, partners, weights = both.batch(epoch, 0)
        if (weights == 1).all():
            cut += 1
            check_cutmix(images, targets, *plain.batch(epoch, 0), partners)
        else:
            assert same((images, targets, partners, weights), mixup.batch(epoch, 0))
    assert 10 <= cut <= 30


def test_a_loss_has_its_other_targets():
    batches = small(more_targets=lambda step: (step.images * 2, np.float32([step.epoch, step.index])))
    _, (labels, doubled, where) = batches.batch(1, 2)
    np.testing.assert_array_equal(labels, doubled // 2 % 5)
    assert where.tolist() == [1, 2]


def test_the_next_batch_and_no_more_is_prepared_meanwhile():
    source, second, read = drawn(40), threading.Event(), []
    original = source.read

    def record(index, plan):
        read.append(index)
        if len(read) == 8:
            second.set()
        return original(index, plan)

    source.read = record
    batches = pictures(source)
    steps = batches.batches(0, 100)
    assert read == [] and pool_threads() == []
    next(steps)
    assert second.wait(timeout=10)
    assert sorted(read) == sorted(np.concatenate([batches.order.step(0, k).images for k in range(2)]))
    assert all(name.startswith("batches") for name in source.threads)
    steps.close()
    assert len(read) == 8 and pool_threads() == []


@pytest.mark.parametrize("settings", [{"workers": 1}, {"workers": 2}, {"workers": 1, "cutmix_alpha": 1.0}])
def test_an_exception_of_a_worker_reaches_the_caller(settings):
    source = drawn(12)
    batches = pictures(source, **settings)
    source.damaged = {int(batches.order.step(0, 2).images[1])}
    steps, received = batches.batches(0, 10), 0
    with pytest.raises(UserError, match=r"^picture \d+: damaged; "):
        for _ in steps:
            received += 1
    assert received == 2 and pool_threads() == []
    with pytest.raises(UserError, match="damaged"):
        batches.batch(0, 2)
    assert pool_threads() == []


PREPARATIONS = [
    Preparation(8, MEAN, STD, "squash"),
    Preparation(8, MEAN, STD, "centre", "bicubic", 0.73),
    Preparation(32, MEAN, STD),
]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("how", PREPARATIONS)
@pytest.mark.parametrize("make", [drawn, image_set])
@pytest.mark.parametrize(("count", "size", "batch_size"), [
    (1, 1, 1), (1, 3, 4), (13, 1, 20), (13, 2, 4), (13, 5, 1), (13, 5, 4),
])  # fmt: skip
def test_evaluation_shows_every_picture_once(make, how, normalised, count, size, batch_size):
    source, seen = make(count), 0
    finish = how.normalise if normalised else lambda picture: picture
    for rank in range(size):
        batches = EvalBatches(
            source, how, batch_size=batch_size, normalised=normalised, workers=2, rank=rank, size=size
        )
        rows = list(batches)
        assert len(rows) == len(batches) and batches.one_shape
        for images, labels, valid in rows:
            assert len(images) == batch_size and images.dtype == (np.float32 if normalised else np.uint8)
            assert labels.shape == (batch_size,) and labels.dtype == np.int32
            assert images.flags.c_contiguous and 1 <= valid <= batch_size
            assert not images[valid:].any() and not labels[valid:].any()
            for image, label in zip(images[:valid], labels[:valid], strict=True):
                np.testing.assert_array_equal(image, finish(how.square(source.read(seen))))
                assert label == source.labels[seen]
                seen += 1
    assert seen == count and pool_threads() == []


# 20 pixels on the longer side: 20x10, 20x10, 10x20, 20x20, 20x20, 20x20, 1x20, 20x10
WHOLE = [(40, 20), (10, 5), (5, 10), (7, 7), (20, 20), (90, 91), (3, 900), (80, 40)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("batch_size", "multiple"), [(1, 1), (2, 1), (50, 16)])
def test_whole_pictures_come_once_in_order_neighbours_of_equal_shape_together(size, batch_size, multiple):
    source = Pictures([noise(*shape, seed) for seed, shape in enumerate(WHOLE)], class_names=CLASSES)
    how, seen, valids = Preparation(20, MEAN, STD, interpolation="bicubic"), 0, []
    for rank in range(size):
        batches = EvalBatches(
            source, how, batch_size=batch_size, whole_multiple=multiple, workers=3, rank=rank, size=size
        )
        assert not batches.one_shape
        with pytest.raises(TypeError):
            len(batches)
        for images, labels, valid in batches:
            assert images.dtype == np.float32 and images.flags.c_contiguous
            assert labels.dtype == np.int32 and len(images) == len(labels) == valid <= batch_size
            valids.append(valid)
            for image, label in zip(images, labels, strict=True):
                picture = source.pictures[seen]
                plan = how.plan_whole(*picture.shape[:2], multiple=multiple)
                expected = how.normalise(plan(picture))
                np.testing.assert_array_equal(image, expected)
                assert label == source.labels[seen]
                seen += 1
    assert seen == len(WHOLE) and pool_threads() == []
    if (size, batch_size) == (1, 2):
        assert valids == [2, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("whole_multiple", [None, 1])
def test_evaluation_names_a_picture_that_cannot_be_read(whole_multiple):
    source = drawn(21)
    source.damaged = {9}
    batches = EvalBatches(source, PREPARATIONS[0], batch_size=4, whole_multiple=whole_multiple)
    with pytest.raises(UserError, match=r"^picture 9: damaged; "):
        list(batches)
    assert pool_threads() == []


def test_evaluation_can_be_repeated_and_left_early():
    batches = EvalBatches(drawn(21), PREPARATIONS[1], batch_size=4)
    assert all(same(a[:2], b[:2]) and a[2] == b[2] for a, b in zip(batches, batches, strict=True))
    assert batches.class_names == CLASSES
    rows = iter(batches)
    next(rows)
    rows.close()
    assert pool_threads() == []
