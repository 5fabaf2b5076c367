import threading

import numpy as np
import pytest

from src.common.errors import UserError
from src.data import resize as geometry
from src.data.picture_batches import PictureBatches, PictureEvalBatches
from tests.helpers.batches import pool_threads, same
from tests.helpers.pictures import Pictures, noise

SHAPES = [(20, 30), (31, 17), (1, 40), (12, 12), (3, 2)]


def random_pictures(count, shapes=SHAPES):
    return Pictures([noise(*shapes[k % len(shapes)], seed=k) for k in range(count)])


def numbered(count, shapes=SHAPES):
    """Pictures that say their own number: all the pixels of picture k are k."""
    return Pictures([np.full((*shapes[k % len(shapes)], 3), k, np.uint8) for k in range(count)])


def numbers_of(images):
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def train(source, **settings):
    return PictureBatches(source, **{"batch_size": 4, "seed": 5, "image_size": 8, "workers": 2, **settings})


def evaluation(source, **settings):
    return PictureEvalBatches(source, **{"batch_size": 4, "image_size": 8, "workers": 2, **settings})


RESIZE = {"train_crop": "resize", "resize_size": 10}


def flash(image, rng):
    return image ^ rng.bytes(1)[0]


BUSY = {"mixup_alpha": 0.5, "label_smoothing": 0.1, "flip": "alternating", "interpolation": "bicubic"}


def test_shapes_and_types():
    images, targets = train(random_pictures(10), label_smoothing=0.1).batch(0, 0)
    assert images.shape == (4, 8, 8, 3) and images.dtype == np.uint8 and images.flags.c_contiguous
    assert targets.shape == (4, 7) and targets.dtype == np.float32
    _, labels = train(random_pictures(10)).batch(0, 0)
    assert labels.shape == (4,) and labels.dtype == np.int32
    np.testing.assert_array_equal(targets.argmax(1), labels)
    images, targets, partners, weights = train(random_pictures(10), mixup_alpha=0.3).batch(0, 0)
    assert images.dtype == np.uint8 and targets.dtype == weights.dtype == np.float32
    assert partners.dtype == np.int32 and partners.shape == weights.shape == (4,)
    batches = train(random_pictures(10))
    assert len(batches) == 2 and batches.class_names == tuple("abcdefg") and batches.batch_size == 4


@pytest.mark.parametrize("settings", [{}, RESIZE, {**RESIZE, **BUSY}, {**BUSY, "resize_size": 8}])
def test_a_batch_is_a_function_of_seed_epoch_and_index(settings):
    first, second = (train(random_pictures(12), **settings) for _ in range(2))
    later = second.batch(2, 1)
    assert same(first.batch(0, 0), second.batch(0, 0))
    assert same(first.batch(2, 1), later)
    others = [
        first.batch(2, 0),
        first.batch(0, 1),
        train(random_pictures(12), seed=6, **settings).batch(2, 1),
    ]
    assert not any(np.array_equal(other[0], later[0]) for other in others)


@pytest.mark.parametrize("settings", [BUSY, {**RESIZE, "operations": [(7, flash)]}])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_workers_does_not_matter(settings, workers):
    source = random_pictures(23)
    source.slow = {3, 11, 12}
    one, many = (
        list(train(source, batch_size=7, workers=count, **settings).batches(1, 8)) for count in (1, workers)
    )
    assert len(many) == 7 and all(same(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("settings", [RESIZE, {"flip": "alternating", "label_smoothing": 0.1}])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_global_batch_of_one_rank(settings, size):
    settings = {**settings, "operations": [(7, flash)]}
    source = random_pictures(26)
    whole = train(source, batch_size=4 * size, **settings)
    parts = [train(source, rank=rank, size=size, **settings) for rank in range(size)]
    assert all(len(part) == len(whole) == 26 // (4 * size) for part in parts)
    for epoch in range(2):
        for index in range(len(whole)):
            joined = [
                np.concatenate(both) for both in zip(*(p.batch(epoch, index) for p in parts), strict=True)
            ]
            assert same(joined, whole.batch(epoch, index))


def test_an_epoch_has_every_picture_once_in_an_order_of_its_own():
    batches = train(numbered(12))
    orders = [[n for k in range(3) for n in numbers_of(batches.batch(e, k)[0])] for e in range(4)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    images, labels = batches.batch(1, 1)
    np.testing.assert_array_equal(labels, np.array(numbers_of(images)) % 7)


def test_resize_squashes_the_picture_and_cuts_a_random_square_out_of_it():
    source = Pictures([random_pictures(1).pictures[0]] * 300)
    images, _ = train(source, batch_size=300, flip="none", **RESIZE).batch(0, 0)
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
    batches = train(Pictures([ramp] * 200), batch_size=200, flip="none", image_size=20, **settings)
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


@pytest.mark.parametrize("settings", [{}, RESIZE])
def test_flips_mirror_what_is_not_flipped(settings):
    source = random_pictures(200)
    plain, _ = train(source, batch_size=200, flip="none", **settings).batch(3, 0)
    flipped, _ = train(source, batch_size=200, flip="random", **settings).batch(3, 0)
    turned = np.array([not np.array_equal(a, b) for a, b in zip(plain, flipped, strict=True)])
    np.testing.assert_array_equal(flipped[turned], plain[turned][:, :, ::-1])
    assert 60 < turned.sum() < 140


def test_alternating_flip_turns_each_picture_in_every_second_epoch():
    left = np.zeros((8, 8, 3), np.uint8)
    left[:, :4] = 255
    pictures = [left - (left > 0) * np.uint8(5 * k) for k in range(40)]
    batches = train(Pictures(pictures), batch_size=40, flip="alternating", train_crop="resize", resize_size=8)
    turned = []
    for epoch in range(4):
        images, _ = batches.batch(epoch, 0)
        turned.append({int(image.max()) for image in images if image[0, 0, 0] == 0})
    brightness = {255 - 5 * k for k in range(40)}
    assert turned[0] == turned[2] and turned[1] == turned[3] == brightness - turned[0]
    assert turned[0] and turned[1]


def test_randaugment_sees_the_finished_picture_and_draws_for_each():
    source = random_pictures(24)
    seen = {}

    def stamp(image, rng):
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8
        key = image.tobytes()
        image = image.copy()
        image[0, 0] = rng.integers(0, 256, 3)
        seen[key] = image
        return image

    plain, _ = train(source, batch_size=24).batch(1, 0)
    changed, _ = train(source, batch_size=24, operations=[(7, stamp)]).batch(1, 0)
    assert all(
        np.array_equal(after, seen[before.tobytes()]) for before, after in zip(plain, changed, strict=True)
    )
    assert len(np.unique(changed[:, 0, 0], axis=0)) == 24


@pytest.mark.parametrize("per_image", [False, True])
def test_mixup_leaves_pixels_to_the_device_and_mixes_the_targets(per_image):
    source = random_pictures(20)
    settings = {"batch_size": 10, "label_smoothing": 0.1}
    plain, hard = train(source, **settings).batch(1, 1)
    batches = train(source, **settings, mixup_alpha=0.5, mixup_per_image=per_image)
    images, targets, partners, weights = batches.batch(1, 1)
    np.testing.assert_array_equal(images, plain)
    assert sorted(partners) == list(range(10)) and ((weights >= 0) & (weights <= 1)).all()
    for k in range(10):
        weight = float(weights[k])
        np.testing.assert_allclose(targets[k], weight * hard[k] + (1 - weight) * hard[partners[k]], atol=1e-6)
    if per_image:
        assert partners.tolist() == [*range(1, 10), 0] and len(set(weights)) == 10
    else:
        assert len(set(weights)) == 1
        assert not np.array_equal(batches.batch(1, 0)[2], partners)


@pytest.mark.parametrize(("batch_size", "size"), [(8, 1), (8, 2), (6, 3)])
def test_a_small_set_fills_one_batch_an_epoch_evenly(batch_size, size, caplog):
    with caplog.at_level("WARNING", logger="quartet"):
        parts = [train(numbered(5), batch_size=batch_size, rank=rank, size=size) for rank in range(size)]
    assert len(caplog.messages) == size and "5 images" in caplog.messages[0]
    total = batch_size * size
    for epoch in range(3):
        order = [n for part in parts for n in numbers_of(part.batch(epoch, 0)[0])]
        assert len(order) == total
        assert set(np.bincount(order, minlength=5)) <= {total // 5, -(-total // 5)}
    assert all(len(part) == 1 and len(list(part.batches(2, 5))) == 3 for part in parts)


def test_a_repeated_picture_is_cropped_anew_each_time():
    images, _ = train(Pictures([random_pictures(1).pictures[0]]), batch_size=6).batch(0, 0)
    assert len(np.unique(images.reshape(6, -1), axis=0)) == 6


def test_steps_go_on_over_epochs_and_from_the_middle_of_one():
    batches = train(random_pictures(12), **BUSY)
    steps = list(batches.batches(0, 8))
    assert len(steps) == 8
    assert all(same(step, batches.batch(*divmod(k, 3))) for k, step in enumerate(steps))
    resumed = list(train(random_pictures(12), **BUSY).batches(4, 8))
    assert all(same(a, b) for a, b in zip(resumed, steps[4:], strict=True))
    assert list(batches.batches(5, 5)) == []


def test_the_next_batch_and_no_more_is_prepared_meanwhile():
    source, second, read = random_pictures(40), threading.Event(), []
    original = source.read

    def record(index):
        read.append(index)
        if len(read) == 8:
            second.set()
        return original(index)

    source.read = record
    batches = train(source)
    steps = batches.batches(0, 100)
    assert read == [] and pool_threads() == []
    next(steps)
    assert second.wait(timeout=10)
    assert sorted(read) == sorted([*batches._indices(0, 0), *batches._indices(0, 1)])
    assert all(name.startswith("batches") for name in source.threads)
    steps.close()
    assert len(read) == 8 and pool_threads() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_a_worker_reaches_the_caller(workers):
    source = random_pictures(12)
    batches = train(source, workers=workers)
    source.damaged = {int(batches._indices(0, 2)[1])}
    steps, received = batches.batches(0, 10), 0
    with pytest.raises(UserError, match=r"^picture \d+: damaged; "):
        for _ in steps:
            received += 1
    assert received == 2
    assert pool_threads() == []
    with pytest.raises(UserError, match="damaged"):
        batches.batch(0, 2)
    assert pool_threads() == []


def test_several_workers_read_at_once():
    source, together = random_pictures(12), threading.Barrier(3)
    original = source.read

    def meet(index):
        together.wait(timeout=10)
        return original(index)

    source.read = meet
    assert len(train(source, workers=3, batch_size=12).batch(0, 0)[0]) == 12


def test_workers_follow_the_usable_cores(monkeypatch):
    for cores, workers in ((1, 1), (3, 3), (200, 8)):
        monkeypatch.setattr("src.model_utils.cpu.usable_cores", lambda cores=cores: cores)
        assert train(random_pictures(4), workers=0).workers == workers
        assert evaluation(random_pictures(4), workers=0).workers == workers


def test_the_pictures_are_not_changed():
    source = random_pictures(12)
    for image in source.pictures:
        image.setflags(write=False)
    list(train(source, **BUSY).batches(0, 3))
    list(train(source, train_crop="resize", resize_size=12, image_size=12).batches(0, 3))
    list(evaluation(source, eval_crop="centre"))


@pytest.mark.parametrize(("settings", "named"), [
    ({"train_crop": "pad"}, "train_crop"), ({"train_crop": "resize", "resize_size": 7}, "resize_size"),
    ({"flip": "both"}, "flip"),
])  # fmt: skip
def test_unknown_or_unfit_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        train(random_pictures(4), **settings)


def test_a_batch_beyond_the_epoch_is_refused():
    with pytest.raises(IndexError):
        train(random_pictures(12)).batch(0, 3)


@pytest.mark.parametrize("settings", [
    {}, {"eval_crop": "centre"}, {"eval_crop": "centre", "crop_percentage": 0.73, "interpolation": "bicubic"},
])  # fmt: skip
@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 3), (13, 1), (13, 2), (13, 5)])
@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_evaluation_shows_every_picture_once(settings, count, size, batch_size):
    source, seen = random_pictures(count), 0
    full = {"eval_crop": "squash", "crop_percentage": 1.0, "interpolation": "bilinear", **settings}
    for rank in range(size):
        batches = evaluation(source, batch_size=batch_size, rank=rank, size=size, **settings)
        rows = list(batches)
        assert len(rows) == len(batches)
        for images, labels, valid in rows:
            assert images.shape == (batch_size, 8, 8, 3) and images.dtype == np.uint8
            assert labels.shape == (batch_size,) and labels.dtype == np.int32
            assert images.flags.c_contiguous and 1 <= valid <= batch_size
            assert not images[valid:].any() and not labels[valid:].any()
            for image, label in zip(images[:valid], labels[:valid], strict=True):
                expected = geometry.prepare_picture(source.pictures[seen], size=8, **full)
                np.testing.assert_array_equal(image, expected)
                assert label == source.labels[seen]
                seen += 1
    assert seen == count and pool_threads() == []


def test_evaluation_can_be_repeated_and_left_early():
    source = random_pictures(21)
    batches = evaluation(source)
    assert all(same(a[:2], b[:2]) and a[2] == b[2] for a, b in zip(batches, batches, strict=True))
    assert batches.class_names == tuple("abcdefg")
    rows = iter(batches)
    next(rows)
    rows.close()
    assert pool_threads() == []


def test_an_exception_in_evaluation_reaches_the_caller():
    source = random_pictures(21)
    source.damaged = {9}
    rows = iter(evaluation(source))
    assert [next(rows)[2] for _ in range(2)] == [4, 4]
    with pytest.raises(UserError, match=r"^picture 9: damaged; "):
        next(rows)
    assert pool_threads() == []
