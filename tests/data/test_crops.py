# SPDX-License-Identifier: Apache-2.0
"""What training makes of images: crops, flips, operations, colour, erasing, holes and shifts."""

import numpy as np
import pytest

from src.data import resize as geometry
from src.data.augment.colour import ColourChange
from src.data.augment.erasing import Erasing
from src.data.binary import ImageSet
from src.data.crops import PadCrops, PictureCrops
from src.data.normalise import Normalise
from tests.helpers.batches import same, train_batches
from tests.helpers.pictures import Pictures, noise

MEAN, STD = (100.0, 120.0, 140.0), (50.0, 60.0, 70.0)
PLAIN = {"crop_pad": 0, "flip": "none", "cutout": 0}
RESIZE = {"train_crop": "resize", "resize_size": 10}
COLOUR = ColourChange(jitter=(0.4, 0.4, 0.4, 0.1), lighting=0.1)


def small(data, **settings):
    return train_batches(PadCrops, data, Normalise(MEAN, STD), **settings)


def pictures(source, side=8, **settings):
    return train_batches(PictureCrops, source, side, **{"workers": 2, **settings})


def random_pictures(count):
    shapes = [(20, 30), (31, 17), (1, 40), (12, 12), (3, 2)]
    return Pictures([noise(*shapes[k % 5], seed=k) for k in range(count)])


def of_one(image, count):
    return ImageSet(np.stack([image] * count), np.zeros(count, np.int32), ("a",))


def levels(images):
    return np.rint(images[:, 0] * STD[0] + MEAN[0]).astype(int)


def test_without_augmentation_small_images_are_normalised(make_set):
    data = make_set(12)
    batches = small(data, **PLAIN)
    images, _ = batches.batch(3, 1)
    chosen = data.images[batches.order.step(3, 1).images]
    expected = [Normalise(MEAN, STD)(image.transpose(1, 2, 0)) for image in chosen]
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("pad", [2, 4])
def test_crop_shows_every_offset_of_the_reflected_image(pad):
    """With 2, what airbench calls translate 2."""
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 4, (3, 32, 32))
    images, _ = small(of_one(ramp, 600), batch_size=600, crop_pad=pad, flip="none", cutout=0).batch(0, 0)
    reflected = [*range(pad, 0, -1), *range(32), *range(30, 30 - pad, -1)]
    shown = {tuple(image) for image in levels(images)[..., 0] // 4}
    assert shown == {tuple(reflected[top : top + 32]) for top in range(2 * pad + 1)}


@pytest.mark.parametrize("make", ["small", "resize", "random_resized"])
def test_flips_mirror_half_of_the_images_or_each_in_every_second_epoch(make, make_set):
    """Told by a mirror of the same batch; in epochs 0 and 1 of one order, by image."""

    def batch(flip, epoch):
        if make == "small":
            batches = small(make_set(200), batch_size=200, crop_pad=2, cutout=0, flip=flip)
        else:
            settings = RESIZE if make == "resize" else {}
            source = Pictures([noise(20, 30, seed) for seed in range(200)])
            batches = pictures(source, batch_size=200, flip=flip, **settings)
        images = batches.batch(epoch, 0)[0]
        images = images if make == "small" else images.transpose(0, 3, 1, 2)
        return batches.order.step(epoch, 0).images, images

    def turned(flip, epoch):
        numbers, plain = batch("none", epoch)
        flipped = batch(flip, epoch)[1]
        turned = (flipped != plain).any((1, 2, 3))
        np.testing.assert_array_equal(flipped[turned], plain[turned][..., ::-1])
        return set(numbers[turned].tolist())

    assert 60 < len(turned("random", 0)) < 140 and turned("random", 0) != turned("random", 1)
    epochs = [turned("alternating", epoch) for epoch in range(3)]
    assert epochs[0] == epochs[2] and 60 < len(epochs[0]) < 140
    assert epochs[0].isdisjoint(epochs[1]) and len(epochs[0] | epochs[1]) == 200


@pytest.mark.parametrize("size", [5, 8, 12])
def test_cutout_makes_one_hole_of_the_mean_colour_anywhere(size):
    data = of_one(np.full((3, 32, 32), 255, np.uint8), 600)
    images, _ = small(data, batch_size=600, **{**PLAIN, "cutout": size}).batch(0, 0)
    holes = (images == 0).all(1)
    assert (holes.sum((1, 2)) == size**2).all() and (holes.any(2).sum(1) == size).all()
    assert set(holes.any(2).argmax(1)) == set(holes.any(1).argmax(1)) == set(range(33 - size))


def test_cutout_leaves_the_rest_as_it_was(make_set):
    with_hole, _ = small(make_set(8), batch_size=8, cutout=8).batch(0, 0)
    without, _ = small(make_set(8), batch_size=8, cutout=0).batch(0, 0)
    kept = with_hole != 0
    np.testing.assert_array_equal(with_hole[kept], without[kept])


def test_translate_uncovers_the_mean_colour():
    data = of_one(np.full((3, 32, 32), 255, np.uint8), 20)
    images, _ = small(data, batch_size=20, **{**PLAIN, "translate": 3}).batch(0, 0)
    for image in images:
        rows, columns = np.nonzero((image != 0).all(0))
        assert np.ptp(rows) >= 28 and np.ptp(columns) >= 28
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert (images == 0).any()


def test_jitter_shifts_and_scales_each_image_but_no_hole(make_set):
    """Hiverge: x <- (x + b) c, anew in each epoch; what is told of b and c is by the least squares of x."""
    how = {**PLAIN, "translate": 2, "cutout": 8}
    plain = small(make_set(40), batch_size=40, **how)
    jittered = small(make_set(40), batch_size=40, **how, brightness_jitter=0.4, contrast_jitter=0.2)
    drawn = []
    for epoch in range(2):
        numbers = plain.order.step(epoch, 0).images
        values = np.empty((40, 2))
        for before, after, number in zip(plain.batch(epoch, 0)[0], jittered.batch(epoch, 0)[0], numbers):
            kept = (before != 0).any(0)
            np.testing.assert_array_equal(after[:, ~kept], 0)
            c, shift = np.polyfit(before[:, kept].ravel().astype(np.float64), after[:, kept].ravel(), 1)
            values[number] = shift / c, c
            np.testing.assert_allclose(after[:, kept], c * before[:, kept] + shift, atol=1e-5)
        drawn.append(values)
    for values in drawn:
        assert 0.3 < abs(values[:, 0]).max() <= 0.4001 and 0.15 < abs(values[:, 1] - 1).max() <= 0.2001
    assert (abs(drawn[0] - drawn[1]) > 1e-4).all()


def test_each_image_is_changed_differently(make_set):
    batches = small(of_one(make_set(1).images[0], 16), translate=2)
    images = np.concatenate([batches.batch(*where)[0] for where in ((0, 0), (0, 1), (1, 0))])
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12
    images, _ = pictures(Pictures([noise(20, 30)]), batch_size=6).batch(0, 0)
    assert len(np.unique(images.reshape(6, -1), axis=0)) == 6


def stamp(image, rng):
    """Keeps the image, except for a random number in its first pixel."""
    assert image.dtype == np.uint8 and image.ndim == image.shape[2] == 3 and image.flags.c_contiguous
    image = image.copy()
    image[0, 0] = rng.integers(0, 256, 3)
    return image


@pytest.mark.parametrize("make", ["small", "pictures"])
def test_operations_see_the_cropped_and_flipped_image_and_draw_for_each(make, make_set):
    def batch(**settings):
        if make == "pictures":
            return pictures(random_pictures(24), batch_size=24, **settings).batch(1, 0)[0]
        images = small(make_set(24), batch_size=24, cutout=0, **settings).batch(1, 0)[0]
        return np.rint(images.transpose(0, 2, 3, 1) * STD + MEAN)

    plain, changed = batch(), batch(operations=[(7, stamp)])
    assert (changed[:, 0, 0] != plain[:, 0, 0]).any(1).all()
    assert len(np.unique(changed[:, 0, 0], axis=0)) == 24
    changed[:, 0, 0] = plain[:, 0, 0]
    np.testing.assert_array_equal(changed, plain)


def test_resize_squashes_the_picture_and_cuts_a_random_square_out_of_it():
    source = Pictures([noise(20, 30)] * 300)
    images, _ = pictures(source, batch_size=300, flip="none", **RESIZE).batch(0, 0)
    whole = geometry.resize(source.pictures[0], 10, 10, "bilinear")
    windows = {
        whole[top : top + 8, left : left + 8].tobytes(): (top, left) for top in range(3) for left in range(3)
    }
    seen = [windows[image.tobytes()] for image in images]
    assert set(seen) == set(windows.values())
    assert max(seen.count(corner) for corner in set(seen)) < 70


@pytest.mark.parametrize(("settings", "area", "ratio"), [
    ({}, (0.08, 1), (3 / 4, 4 / 3)),  # Inception's
    *(({"crop_area": (0.25, 0.5), "crop_ratio": (0.5, 2.0), "interpolation": how}, (0.25, 0.5), (0.5, 2.0))
      for how in ("bilinear", "bicubic", "tf_bilinear")),
])  # fmt: skip
def test_random_resized_shows_a_box_of_the_picture(settings, area, ratio):
    """A ramp in both directions tells which box a crop is from."""
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[:, None] * 2, np.arange(100)[None] * 2
    batches = pictures(Pictures([ramp] * 200), 20, batch_size=200, flip="none", **settings)
    images = batches.batch(0, 0)[0].astype(float)
    # 18 of the 20 steps between the outermost new pixels but one; the borders are clamped.
    height, width = (
        (images[:, -2, 0, 0] - images[:, 1, 0, 0]) / 2 / 17 * 20,
        (images[:, 0, -2, 1] - images[:, 0, 1, 1]) / 2 / 17 * 20,
    )
    share, aspect = height * width / 1e4, width / height
    reached = np.ptp(share) / (area[1] - area[0])
    assert share.min() > 0.88 * area[0] and share.max() < 1.1 * area[1] and reached > 0.85
    assert aspect.min() > 0.9 * ratio[0] and aspect.max() < 1.1 * ratio[1]
    assert aspect.min() < 1.15 * ratio[0] and aspect.max() > 0.85 * ratio[1]
    assert 0.8 < np.exp(np.log(aspect).mean()) < 1.25
    assert len(np.unique(images[:, 10, 10, :2], axis=0)) > 150


def finished(**settings):
    """All 24 pictures of an epoch."""
    source = Pictures([noise(15, 15, seed) for seed in range(24)])
    settings = {"train_crop": "resize", "resize_size": 14, "batch_size": 24, **settings}
    return pictures(source, 12, **settings).batch(0, 0)[0]


def test_colour_is_one_map_of_the_finished_picture_and_another_in_each_row():
    """Where nothing is clipped, a new pixel is a matrix times the pixel without, plus a constant."""
    plain, changed, maps = finished(), finished(colour=COLOUR), []
    for before, after in zip(plain.reshape(24, -1, 3), changed.reshape(24, -1, 3), strict=True):
        kept = ((after > 0) & (after < 255)).all(1)
        assert kept.sum() > 30
        inputs = np.column_stack([before, np.ones(len(before))])[kept]
        found = np.linalg.lstsq(inputs, after[kept].astype(float), rcond=None)[0]
        assert np.abs(inputs @ found - after[kept]).max() < 1.5
        maps.append(tuple(found.ravel().round(2)))
    assert len(set(maps)) == 24


def test_contrast_is_about_the_mean_of_what_was_cropped():
    ramp = np.repeat(np.linspace(80, 176, 40).astype(np.uint8), 40 * 3).reshape(40, 40, 3)
    (plain, _), (changed, _) = (
        pictures(Pictures([ramp] * 24), 12, batch_size=24, colour=colour).batch(0, 0)
        for colour in (None, ColourChange(jitter=(0.0, 0.4, 0.0, 0.0)))
    )
    assert np.ptp(plain.mean((1, 2, 3))) > 20 and (plain != changed).any((1, 2, 3)).sum() > 20
    np.testing.assert_allclose(changed.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=1)


def test_erasing_comes_last_and_leaves_the_rest_as_it_was():
    erasing = Erasing(probability=0.6, noise=False, mean=(9, 8, 7), std=(1, 1, 1))
    without, erased = finished(colour=COLOUR), finished(colour=COLOUR, erasing=erasing)
    holes = (erased != without).any(3)
    assert 8 <= holes.any((1, 2)).sum() <= 20
    assert (erased[holes] == (9, 8, 7)).all()
    for hole in holes[holes.any((1, 2))]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert np.ptp(rows) < 11 and np.ptp(columns) < 11
        assert hole.sum() >= 0.9 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_noise_is_drawn_for_each_picture():
    one = noise(15, 15)
    erasing = Erasing(probability=1.0, noise=True, mean=(128, 128, 128), std=(60, 60, 60))
    settings = {"train_crop": "resize", "resize_size": 15, "flip": "none", "erasing": erasing}
    images, _ = pictures(Pictures([one] * 24), 15, batch_size=24, **settings).batch(0, 0)
    holes = [image[(image != one).any(2)] for image in images]
    assert len({hole[0].tobytes() for hole in holes}) == 24


def test_normalising_here_changes_nothing_else():
    normalise = Normalise(MEAN, STD)
    plain, ours = finished(colour=COLOUR), finished(colour=COLOUR, normalise=normalise)
    np.testing.assert_array_equal(ours, [normalise(image) for image in plain])


def test_the_images_are_not_changed(make_set):
    data, source = make_set(12), random_pictures(12)
    data.images.setflags(write=False)
    list(small(data, translate=2, cutmix_alpha=1.0).batches(0, 4))
    for image in source.pictures:
        image.setflags(write=False)
    for settings in ({"cutmix_alpha": 0.5, "interpolation": "bicubic", "flip": "alternating"}, RESIZE):
        list(pictures(source, **settings).batches(0, 3))
    settings = {"train_crop": "resize", "resize_size": 12, "colour": COLOUR}
    assert same(*(pictures(source, 12, **settings).batch(1, 1) for _ in range(2)))


def test_an_unknown_flip_is_refused():
    with pytest.raises(ValueError, match="flip"):
        pictures(random_pictures(4), flip="both").batch(0, 0)
