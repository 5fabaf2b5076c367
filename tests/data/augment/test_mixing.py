"""Colour, erasing and CutMix in whole batches: who draws what, and what is mixed with whom."""

import numpy as np
import pytest

from src.common.errors import UserError
from src.data.augment.colour import ColourChange
from src.data.augment.erasing import Erasing
from src.data.batches import Stream
from src.data.binary import ImageSet
from src.data.loader import TrainBatches
from src.data.picture_batches import PictureBatches, PictureEvalBatches
from tests.helpers.batches import pool_threads, same
from tests.helpers.pictures import Pictures, noise

SIDE = 12
COLOUR = ColourChange(jitter=(0.4, 0.4, 0.4, 0.1), lighting=0.1)
ERASING = Erasing(probability=0.6, noise=True, mean=(125.0, 123.0, 114.0), std=(60.0, 60.0, 60.0))
ALL = {"colour": COLOUR, "erasing": ERASING, "operations": [(7, lambda image, rng: image ^ rng.bytes(1)[0])]}

CLASSES = tuple("abcde")


def drawn(count=24, side=15):
    return Pictures([noise(side, side, seed) for seed in range(count)], class_names=CLASSES)


def pictures(**settings):
    plain = {"batch_size": 8, "seed": 5, "image_size": SIDE, "workers": 2, "train_crop": "resize"}
    return PictureBatches(drawn(), resize_size=14, **{**plain, **settings})


def small_images(**settings):
    """32x32 images, which crop_pad 0 and no flip leave as they are."""
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), np.uint8)
    data = ImageSet(images, np.arange(24, dtype=np.int32) % 5, CLASSES)
    plain = {"batch_size": 8, "seed": 5, "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pad": 0, "cutout": 0}
    return TrainBatches(data, **{**plain, "flip": "none", **settings})


def test_no_two_purposes_draw_the_same_numbers():
    assert len(Stream) == len(Stream.__members__)  # of two names for one number, one would be an alias


@pytest.mark.parametrize("settings", [ALL, {**ALL, "mixup_alpha": 0.3, "cutmix_alpha": 1.0}])
def test_a_batch_is_a_function_of_seed_epoch_and_index_on_any_number_of_workers(settings):
    batches, batch = pictures(**settings), pictures(**settings, workers=1).batch(2, 1)
    assert same(list(batches.batches(0, 8))[7], batch)
    others = [batches.batch(2, 0), batches.batch(1, 1), pictures(**{**settings, "seed": 6}).batch(2, 1)]
    assert not any(np.array_equal(other[0], batch[0]) for other in others)


def test_ranks_share_the_changes_of_one_rank():
    whole = pictures(**ALL).batch(1, 2)
    parts = [pictures(**ALL, batch_size=4, rank=rank, size=2).batch(1, 2) for rank in range(2)]
    assert same([np.concatenate(both) for both in zip(*parts, strict=True)], whole)


def test_colour_is_one_map_of_the_finished_picture_and_another_in_each_row():
    """Where nothing is clipped, a new pixel is a matrix times the pixel without, plus a constant."""
    plain, changed = pictures().batch(1, 1)[0], pictures(colour=COLOUR).batch(1, 1)[0]
    maps = []
    for before, after in zip(plain.reshape(8, -1, 3), changed.reshape(8, -1, 3), strict=True):
        kept = ((after > 0) & (after < 255)).all(1)
        assert kept.sum() > 40
        inputs = np.column_stack([before, np.ones(len(before))])[kept]
        found = np.linalg.lstsq(inputs, after[kept].astype(float), rcond=None)[0]
        assert np.abs(inputs @ found - after[kept]).max() < 1.5
        maps.append(tuple(found.ravel().round(2)))
    assert len(set(maps)) == 8


def test_contrast_is_about_the_mean_of_what_was_cropped():
    ramp = np.repeat(np.linspace(80, 176, 40).astype(np.uint8), 40 * 3).reshape(40, 40, 3)
    settings = {"batch_size": 24, "seed": 5, "image_size": SIDE, "workers": 2}
    (plain, _), (changed, _) = (
        PictureBatches(Pictures([ramp] * 24), colour=colour, **settings).batch(0, 0)
        for colour in (None, ColourChange(jitter=(0.0, 0.4, 0.0, 0.0)))
    )
    assert np.ptp(plain.mean((1, 2, 3))) > 20 and (plain != changed).any((1, 2, 3)).sum() > 20
    np.testing.assert_allclose(changed.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=1)


def test_erasing_comes_last_and_leaves_the_rest_as_it_was():
    without, erased = (
        np.concatenate([pictures(colour=COLOUR, **settings).batch(0, k)[0] for k in range(3)])
        for settings in (
            {},
            {"erasing": Erasing(probability=0.6, noise=False, mean=(9, 8, 7), std=(1, 1, 1))},
        )
    )
    holes = (erased != without).any(3)
    assert 8 <= holes.any((1, 2)).sum() <= 20
    assert (erased[holes] == (9, 8, 7)).all()
    for hole in holes[holes.any((1, 2))]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert np.ptp(rows) < SIDE - 1 and np.ptp(columns) < SIDE - 1
        assert hole.sum() >= 0.9 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_noise_is_drawn_for_each_picture():
    one = noise(15, 15)
    erasing = Erasing(probability=1.0, noise=True, mean=(128, 128, 128), std=(60, 60, 60))
    batches = PictureBatches(
        Pictures([one] * 24), batch_size=24, seed=0, image_size=15, train_crop="resize", resize_size=15,
        flip="none", erasing=erasing,
    )  # fmt: skip
    images, _ = batches.batch(0, 0)
    holes = [image[(image != one).any(2)] for image in images]
    assert len({hole[0].tobytes() for hole in holes}) == 24


def check_cutmix(images, targets, plain, hard):
    """Each image is its own outside one box and a partner's inside, and its target is as the areas are."""
    hard = hard if hard.ndim == 2 else np.eye(len(CLASSES))[hard]
    mixed = 0
    for image, target, own, label in zip(images, targets, plain, hard, strict=True):
        hole = (image != own).any(2)
        expected = [
            label + (other_label - label) * hole.mean()
            for other, other_label in zip(plain, hard, strict=True)
            if not hole.any() or np.array_equal(image[hole], other[hole])
        ]
        assert any(np.allclose(target, one, atol=1e-5) for one in expected)
        if hole.any():
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            mixed += 1
    return mixed


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("make", [pictures, small_images])
def test_cutmix_mixes_rectangles_and_the_targets_by_their_area(make, per_image):
    settings, mixed = {"cutmix_alpha": 1.0, "mixup_per_image": per_image, "label_smoothing": 0.1}, 0
    for index in range(3):
        (plain, hard), (images, targets) = (
            make(label_smoothing=0.1).batch(1, index),
            make(**settings).batch(1, index),
        )
        assert targets.dtype == np.float32 and images.dtype == plain.dtype and images.flags.c_contiguous
        if make is small_images:
            plain, images = plain.transpose(0, 2, 3, 1), images.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        mixed += check_cutmix(images, targets, plain, hard)
    assert mixed >= 8


def test_with_mixup_and_cutmix_each_batch_has_one_of_them():
    plain, both, mixup = pictures(), pictures(mixup_alpha=0.3, cutmix_alpha=1.0), pictures(mixup_alpha=0.3)
    cut = 0
    for epoch in range(40):
        images, targets, partners, weights = both.batch(epoch, 0)
        assert partners.shape == weights.shape == (8,) and weights.dtype == np.float32
        if (weights == 1).all():
            cut += 1
            check_cutmix(images, targets, *plain.batch(epoch, 0))
        else:
            assert same((images, targets, partners, weights), mixup.batch(epoch, 0))
    assert 10 <= cut <= 30


def test_small_images_have_one_of_the_two_as_well():
    alone = {name: small_images(**{name: 0.5}) for name in ("mixup_alpha", "cutmix_alpha")}
    batches = small_images(mixup_alpha=0.5, cutmix_alpha=0.5)
    mixups = [same(batches.batch(epoch, 0), alone["mixup_alpha"].batch(epoch, 0)) for epoch in range(40)]
    assert 10 <= sum(mixups) <= 30
    epoch = mixups.index(False)
    plain, hard = small_images().batch(epoch, 0)
    images, targets = batches.batch(epoch, 0)
    check_cutmix(images.transpose(0, 2, 3, 1), targets, plain.transpose(0, 2, 3, 1), hard)


def test_ranks_draw_their_own_cutmix():
    source = Pictures([noise(15, 15, seed) for seed in range(8)], class_names="abcdefgh")
    parts = [
        PictureBatches(source, batch_size=4, seed=1, image_size=64, rank=rank, size=2, cutmix_alpha=1.0,
                       train_crop="resize", resize_size=64)
        for rank in range(2)
    ]  # fmt: skip
    assert len({round(float(part.batch(0, 0)[1].max(1).min()), 4) for part in parts}) == 2


def test_evaluation_cuts_out_its_share_of_the_picture():
    source = drawn(side=16)
    batches = PictureEvalBatches(source, batch_size=24, image_size=12, crop_percentage=0.75)
    ((images, _, valid),) = batches
    assert valid == 24
    np.testing.assert_array_equal(images, np.stack(source.pictures)[:, 2:14, 2:14])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_picture_ends_a_batch_of_cutmix_with_its_message(workers):
    source = drawn()
    source.damaged = {3}
    batches = PictureBatches(
        source, batch_size=24, seed=0, image_size=15, train_crop="resize", resize_size=15, workers=workers,
        cutmix_alpha=1.0,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"^picture 3: damaged; "):
        next(batches.batches(0, 3))
    assert pool_threads() == []


MEAN, STD = (124.0, 116.0, 104.0), (58.0, 57.0, 56.0)


def normalised(pixels):
    return ((pixels.astype(np.float64) - MEAN) / STD).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("settings", [{}, {**ALL, "mixup_alpha": 0.3, "cutmix_alpha": 1.0}])
def test_normalising_here_changes_nothing_else(settings):
    cutmixed = 0
    for index in range(3):
        ours = pictures(normalise=(MEAN, STD), **settings).batch(0, index)
        plain = pictures(**settings).batch(0, index)
        assert ours[0].dtype == np.float32 and ours[0].flags.c_contiguous
        np.testing.assert_allclose(ours[0], normalised(plain[0]), atol=1e-6)
        assert same(ours[1:], plain[1:])
        cutmixed += len(plain) > 2 and (plain[3] == 1).all()
    assert cutmixed == 0 or cutmixed < 3
    assert bool(settings) == bool(cutmixed)


def test_normalising_in_evaluation_leaves_empty_rows_at_zero():
    settings = {"image_size": SIDE, "batch_size": 7, "workers": 2}
    ours = list(PictureEvalBatches(drawn(), normalise=(MEAN, STD), **settings))
    plain = list(PictureEvalBatches(drawn(), **settings))
    for (images, labels, valid), (pixels, labels_there, valid_there) in zip(ours, plain, strict=True):
        assert valid == valid_there and (labels == labels_there).all()
        np.testing.assert_allclose(images[:valid], normalised(pixels[:valid]), atol=1e-6)
        assert (images[valid:] == 0).all()
    assert ours[-1][2] == 3
