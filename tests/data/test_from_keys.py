# SPDX-License-Identifier: Apache-2.0
"""A config's keys become sources and batches as their meanings say."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from src.common.errors import UserError
from src.data import from_keys as module
from src.data.augment.autoaugment import POLICIES
from src.data.augment.colour import ColourChange
from src.data.augment.erasing import Erasing
from src.data.augment.randaugment import RandAugment
from src.data.batches import Mixing
from src.data.binary import ImageSet
from src.data.crops import PadCrops, PictureCrops
from src.data.keys import OPERATIONS
from src.data.order import Stream
from src.data.preparation import Preparation
from src.data.sources import DATASETS, DataSet, ImageFiles, open_split
from src.model_utils.config import check
from src.shared_config import SharedConfig
from tests.helpers.errors import fails

SOURCE = ImageSet(np.zeros((6, 3, 32, 32), np.uint8), np.arange(6, dtype=np.int32) % 2, ("a", "b"))


def train(*, host_normalises=False, rank=0, size=1, **keys):
    config = check(keys, SharedConfig)
    return module.train_batches(config, SOURCE, host_normalises=host_normalises, rank=rank, size=size)


def evaluation(*, host_normalises=False, side_multiple=1, rank=0, size=1, **keys):
    config = check(keys, SharedConfig)
    return module.eval_batches(
        config, SOURCE, module.preparation(config), host_normalises=host_normalises,
        side_multiple=side_multiple, rank=rank, size=size,
    )  # fmt: skip


PNG = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()


def attributes(thing, names):
    return {name: getattr(thing, name) for name in names}


ORDER = {"batch_size": 7, "seed": 3}
PAD = {"crop_pad": 2, "flip": "alternating", "cutout": 6, "translate": 1}
PAD |= {"brightness_jitter": 0.14, "contrast_jitter": 0.13}
MIXING = {"mixup_alpha": 0.2, "cutmix_alpha": 0.7}
SHARED = {"label_smoothing": 0.1, "workers": 3}
NUMBERS = {"image_mean": [1, 2, 3], "image_std": [4, 5, 6]}
CHANGES = {"randaugment_layers": 2, "randaugment_magnitude": 9.0, "randaugment_std": 0.25}


def test_every_data_key_reaches_the_training_data():
    keys = {**ORDER, **PAD, **MIXING, **SHARED, **NUMBERS, **CHANGES, "mixup_per_image": True}
    made = train(rank=1, size=4, **keys)
    assert attributes(made.order, ORDER) == ORDER
    assert (made.order.count, made.order.total, made.order.mine) == (6, 28, slice(7, 14))
    assert type(made.crops) is PadCrops and attributes(made.crops, PAD) == PAD
    assert made.crops.operations == [(Stream.POLICY, RandAugment(layers=2, magnitude=9.0, std=0.25))]
    assert (made.crops.normalise.mean, made.crops.normalise.std) == ((1, 2, 3), (4, 5, 6))
    assert made.mixing == Mixing(**MIXING, per_image=True) and attributes(made, SHARED) == SHARED
    assert train(batch_size=2).mixing is None


PICTURE_KEYS = {
    "image_size": 40, "train_crop": "random_resized", "crop_area": (0.5, 0.9),
    "crop_ratio": (0.8, 1.2), "interpolation": "bicubic",
}  # fmt: skip


def test_every_picture_key_reaches_the_pictures():
    crops = train(**PICTURE_KEYS, flip="none", batch_size=2).crops
    assert type(crops) is PictureCrops and crops.source is SOURCE
    names = {**PICTURE_KEYS, "flip": "none"}
    assert attributes(crops, names.keys() - {"image_size"}) | {"image_size": crops.side} == names
    assert crops.colour is crops.erasing is crops.normalise is None and crops.operations == []
    assert train(**PICTURE_KEYS, host_normalises=True).crops.normalise.mean == (125.31, 122.95, 113.87)
    assert train(image_size=40, train_crop="resize").crops.resize_size == 40


def test_every_key_reaches_the_test_data():
    made = evaluation(rank=1, size=4, host_normalises=True, eval_batch_size=9, workers=2, **PICTURE_KEYS)
    assert (made.source, made.batch_size, made.workers, [*made.numbers]) == (SOURCE, 9, 2, [1, 2])
    assert made.normalise.mean == (125.31, 122.95, 113.87) and made.one_shape
    assert (made.preparation.image_size, made.preparation.interpolation) == (40, "bicubic")
    assert evaluation(**PICTURE_KEYS).normalise is None
    larger = {**PICTURE_KEYS, "eval_crop": "centre", "eval_image_size": 48, "crop_percentage": 0.875}
    config = check(larger, SharedConfig)
    assert module.preparation(config) == Preparation(
        48, config.image_mean, config.image_std, "centre", "bicubic", 0.875
    )
    how = module.preparation(SharedConfig())
    assert (how.image_size, how.crop, how.interpolation) == (32, "centre", "bilinear")


def test_whole_pictures_have_the_multiple_of_the_network():
    made = evaluation(side_multiple=16, eval_crop="whole", **PICTURE_KEYS)
    assert made.whole_multiple == 16 and not made.one_shape and made.preparation.crop == "centre"


COLOURS = {
    "colour_jitter": [0.4, 0.3, 0.2, 0.1], "lighting": 0.1, "random_erasing": 0.25, "erasing_fill": "noise",
    "image_mean": [1, 2, 3], "image_std": [4, 5, 6], "autoaugment": "imagenet",
}  # fmt: skip


@pytest.mark.parametrize(("keys", "colour", "erasing"), [
    (COLOURS, ColourChange(jitter=(0.4, 0.3, 0.2, 0.1), lighting=0.1),
     Erasing(probability=0.25, noise=True, mean=(1, 2, 3), std=(4, 5, 6))),
    ({"lighting": 0.1}, ColourChange(lighting=0.1), None),
    ({"colour_jitter": [0, 0, 0, 0.1]}, ColourChange(jitter=(0, 0, 0, 0.1)), None),
    ({"random_erasing": 1}, None,
     Erasing(probability=1, noise=False, mean=(125.31, 122.95, 113.87), std=(62.99, 62.09, 66.70))),
])  # fmt: skip
def test_what_changes_pictures_reaches_them(keys, colour, erasing):
    crops = train(**PICTURE_KEYS, **keys).crops
    assert (crops.colour, crops.erasing) == (colour, erasing)
    assert crops.operations == ([(Stream.POLICY, POLICIES["imagenet"])] if "autoaugment" in keys else [])


def test_every_source_key_reaches_the_source(monkeypatch):
    seen = {}

    def spy(path, splits=("train", "test"), **settings):
        seen.update(settings, path=path)
        return [SOURCE for _ in splits]

    monkeypatch.setattr(module, "open_splits", spy)
    monkeypatch.setattr(module, "open_tests", lambda path, names, **how: spy(path, names[:1], **how)[0])
    keys = {"dataset": "cifar100", "val_fraction": 0.3, "split_seed": 5, "damaged_images": "skip"}
    config = check({"data_path": "/there", "examples_per_class": 2, **keys}, SharedConfig)
    how = {"dataset": "cifar100", "val_fraction": 0.3, "seed": 5, "skip_unreadable": True, "path": "/there"}
    assert np.bincount(module.open_source(config, "train").labels).tolist() == [2, 2] and seen == how
    assert module.open_source(config, "test") is SOURCE
    sources = module.open_sources(config, None)  # in memory, there is nothing to look at
    assert len(sources["train"]) == 4 and sources["test"] is SOURCE
    assert module.open_evaluated(config, ("a", "b"), all_images=False) is SOURCE and seen == how
    module.open_evaluated(config, ("a", "b"), all_images=True)
    assert seen == {**how, "val_fraction": None}


@pytest.fixture
def pets(tmp_path):
    """20 images of each of two classes."""
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").write_bytes(PNG)
    return tmp_path


def _opened(pets, **keys):
    return check({"data_path": str(pets), "train_crop": "resize", **keys}, SharedConfig)


def test_what_the_look_finds_is_left_out_before_images_are_chosen(pets):
    looked = []

    def look(files):
        looked.append(files)
        return {file: "damaged" for file in files if int(Path(file).stem) < 10}

    plain = module.open_sources(_opened(pets), lambda files: {})
    message = fails(module.open_sources, _opened(pets), look)
    assert "20 of 40 images are damaged" in message
    few = module.open_sources(_opened(pets, damaged_images="skip", examples_per_class=3), look)
    names = [Path(few["train"].name(index)).stem for index in range(6)]
    assert len(few["train"]) == 6 and all(int(name) >= 10 for name in names)
    assert len(looked) == 2 and len(looked[0]) == 40, "both splits at once"
    for split in ("train", "test"):
        whole = len(plain[split])
        assert (
            few[split].left_out + len(module.open_sources(_opened(pets, damaged_images="skip"), look)[split])
            == whole
        )


def test_without_a_look_no_file_is_opened(pets, monkeypatch):
    """Old behaviour: evaluation, export and inference opened every file of the training data."""
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setattr("os.open", lambda *_, **__: pytest.fail("opened"))
    config = _opened(pets)
    assert len(module.open_source(config, "train")) + len(module.open_source(config, "test")) == 40
    assert len(module.open_evaluated(config, ("ant", "bee"), all_images=True)) == 40


def test_the_held_out_images_and_the_few_shots_have_seeds_of_their_own(pets):
    """Old behaviour: one seed for both, so few-shot choices were compared on different test images."""

    def names(split, **keys):
        source = module.open_source(_opened(pets, examples_per_class=3, **keys), split)
        return [source.name(index) for index in range(len(source))]

    held_out, chosen = names("test"), names("train")
    assert names("test", few_shot_seed=1) == held_out != names("test", split_seed=1)
    assert names("train", few_shot_seed=1) != chosen
    assert not set(names("train", few_shot_seed=1)) & set(held_out)


def test_image_files_need_a_crop_of_pictures(monkeypatch):
    files = ImageFiles(("a.jpg",), np.zeros(1, np.int32), ("a",))
    monkeypatch.setattr(module, "open_splits", lambda *_, **__: [files])
    with pytest.raises(UserError, match=r"train_crop: pad is for sets of 32x32 images, .*use train_crop"):
        module.open_source(SharedConfig(), "train")


def test_a_new_operation_is_a_row_and_has_random_numbers_of_its_own(monkeypatch):
    """Old behaviour: keys, batches, pictures, loader and recipe had to be edited for each."""

    def from_keys(keys):
        return lambda image, rng: image ^ np.uint8(rng.integers(1, 256))

    source = ImageSet(np.zeros((8, 3, 32, 32), np.uint8), np.zeros(8, np.int32), ("a",))
    plain = {"batch_size": 8, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}
    sized = {"train_crop": "resize"}

    def images(**keys):
        config = check({**plain, **keys}, SharedConfig)
        return module.train_batches(config, source, host_normalises=True, rank=0, size=1).batch(0, 0)[0]

    before = [images(crop_pad=0), images(**sized)]
    monkeypatch.setitem(OPERATIONS, "flash", (100, from_keys))
    for old, new in zip(before, [images(crop_pad=0), images(**sized)], strict=True):
        assert (old == -1).all()
        flat = new.reshape(8, -1)
        assert (flat == flat[:, :1]).all() and len(np.unique(flat[:, 0])) > 1


def test_a_new_data_set_is_a_row(monkeypatch, tmp_path):
    monkeypatch.setitem(
        DATASETS, "marked", DataSet(lambda p: 3 * (p / "mark").exists(), lambda *_, **__: ["it"])
    )
    (tmp_path / "mark").touch()
    assert open_split(tmp_path, "train") == open_split("/none", "train", dataset="marked") == "it"


@pytest.mark.parametrize(("keys", "shape"), [
    ({}, (32, 32)), ({"eval_image_size": 64}, (64, 64)),
    ({"eval_image_size": 48, "eval_crop": "whole"}, (48, 48)),
    ({"crop_percentage": 0.8}, (32, 32)), ({"eval_image_size": 20, "interpolation": "bicubic"}, (20, 20)),
])  # fmt: skip
def test_small_images_are_evaluated_as_the_keys_say(keys, shape):
    """Old behaviour: with train_crop pad they were 32x32 whatever the keys said, without a word."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)
    source = ImageSet(pixels, np.zeros(5, np.int32), ("a",))
    config = check({"train_crop": "pad", "eval_batch_size": 3, **keys}, SharedConfig)
    how = module.preparation(config)
    batches = module.eval_batches(config, source, how, host_normalises=True, side_multiple=1, rank=0, size=1)
    images = [image for some, _, valid in batches for image in some[:valid]]
    assert [image.shape for image in images] == [(3, *shape)] * 5
    for image, planes in zip(images, pixels, strict=True):
        expected = how.normalise(how.square(np.ascontiguousarray(planes.transpose(1, 2, 0))))
        np.testing.assert_array_equal(image, expected)
