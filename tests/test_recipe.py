"""A config's keys become data, schedule and parameter groups as their meanings say."""

import logging
from pathlib import Path

import numpy as np
import pytest

from src import recipe as module
from src.common.errors import UserError
from src.data.autoaugment import autoaugment
from src.data.cifar10 import ImageSet
from src.data.colour import ColourChange
from src.data.erasing import Erasing
from src.data.randaugment import RandAugment
from src.data.sources import ImageFiles
from src.layers.losses import CrossEntropy
from src.model_utils.config import check
from src.optim import schedules
from src.optim.optimizers import SGD
from src.recipe import Recipe
from src.resnet9.config import ResNet9Config
from src.resnet9.recipe import ResNet9Recipe
from src.shared_config import SharedConfig

RATES = {"lr": 0.3, "lr_schedule": "cosine", "warmup_epochs": 4}


def _recipe(**keys) -> ResNet9Recipe:
    return ResNet9Recipe(check(keys, ResNet9Config))


def _rates(*, images=512, **keys) -> np.ndarray:
    return _recipe(**RATES, **keys).rates(updates=45, updates_per_epoch=2.5, images_per_update=images)


@pytest.mark.parametrize(
    ("rule", "images", "factor"),
    [("none", 2048, 1), ("linear", 2048, 4), ("sqrt", 2048, 2), ("linear", 128, 0.25), ("sqrt", 128, 0.5)],
)
def test_the_rates_follow_the_images_of_an_update(rule, images, factor):
    rates = _rates(lr_scale_rule=rule, images=images)
    np.testing.assert_allclose(rates, factor * schedules.cosine(45, lr=0.3, warmup_steps=10), rtol=1e-15)


def test_rates_that_do_not_follow_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "quartet"):
        _rates(images=2048)
    (record,) = caplog.records
    message = record.getMessage()
    assert "2048 images, not lr_base_batch 512" in message and "by 4 or 2" in message


@pytest.mark.parametrize(("rule", "images"), [("none", 512), ("linear", 2048), ("sqrt", 128)])
def test_nothing_is_warned_of_where_they_follow_or_need_not(caplog, rule, images):
    with caplog.at_level(logging.WARNING, "quartet"):
        _rates(images=images, lr_scale_rule=rule)
    assert not caplog.records


# --- parameter groups


@pytest.fixture(scope="module")
def network():
    return _recipe(widths=[2, 2, 2, 2]).network(num_classes=3)


def _groups(network, **keys) -> dict:
    recipe = _recipe(**keys)
    groups = module.group_parameters(network.trainable_params(), recipe.param_rules())
    return {group.name: group for group in groups}


def test_the_groups_of_resnet9(network):
    groups = _groups(network)
    assert list(groups) == ["biases", "scales", "weights"]
    names = {name: [parameter.name for parameter in group.parameters] for name, group in groups.items()}
    assert [len(names[name]) for name in names] == [8, 8, 9]
    assert all(name.endswith(".bn.beta") for name in names["biases"])
    assert all(name.endswith(".bn.gamma") for name in names["scales"])
    assert names["weights"][-1] == "linear.weight"
    assert all(name.endswith(".conv.weight") for name in names["weights"][:-1])


@pytest.mark.parametrize(
    ("keys", "decays", "multipliers"),
    [
        ({}, (5e-4, 5e-4, 5e-4), (1, 1, 1)),
        ({"decay_norm_and_bias": False}, (0, 0, 5e-4), (1, 1, 1)),
        ({"bias_lr_multiplier": 64}, (5e-4 / 64, 5e-4, 5e-4), (64, 1, 1)),
        ({"bias_lr_multiplier": 64, "decay_norm_and_bias": False}, (0, 0, 5e-4), (64, 1, 1)),
        ({"weight_decay": 0}, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_decay_and_rate_of_the_groups(network, keys, decays, multipliers):
    groups = _groups(network, **keys).values()
    assert tuple(group.weight_decay for group in groups) == decays
    assert tuple(group.lr_multiplier for group in groups) == multipliers


def test_the_optimizer_updates_all_trainable_parameters(network):
    optimizer = _recipe(momentum=0.8, nesterov=False).optimizer(network)
    assert isinstance(optimizer, SGD)
    assert abs(optimizer.momentum - 0.8) < 1e-7 and optimizer.nesterov is False
    assert {p.name for p in optimizer.parameters} == {p.name for p in network.trainable_params()}


def test_every_setting_reaches_the_optimizer(network, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        module, "create_optimizer", lambda *where, **settings: seen.update(settings, at=where)
    )
    keys = {"momentum": 0.1, "nesterov": False, "beta1": 0.2, "beta2": 0.3, "rmsprop_decay": 0.4}
    keys["lr_in_velocity"] = True
    _recipe(optimizer="adamw", optimizer_eps=0.5, **keys).optimizer(network)
    name, groups = seen.pop("at")
    assert name == "adamw" and len(groups) == 3
    assert seen == {**keys, "eps": 0.5}


# --- data, loss and network


DATA_KEYS = {
    "batch_size": 7,
    "seed": 3,
    "crop_pad": 2,
    "flip": "alternating",
    "cutout": 6,
    "translate": 1,
    "mixup_alpha": 0.2,
    "cutmix_alpha": 0.7,
    "mixup_per_image": True,
    "label_smoothing": 0.1,
    "soft_labels": True,
}


def test_every_data_key_reaches_the_training_data(data_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "TrainBatches", lambda data, **settings: seen.update(settings, data=data))
    augmented = {"randaugment_layers": 2, "randaugment_magnitude": 9.0, "randaugment_std": 0.25}
    keys = {**DATA_KEYS, **augmented, "image_mean": [1, 2, 3], "image_std": [4, 5, 6]}
    recipe = _recipe(data_path=str(data_path), **keys)
    recipe.train_batches(rank=1, size=4)
    assert len(seen.pop("data")) == 200
    assert seen.pop("policy") == RandAugment(layers=2, magnitude=9.0, std=0.25)
    assert seen == {**DATA_KEYS, "mean": (1, 2, 3), "std": (4, 5, 6), "rank": 1, "size": 4}


def test_every_data_key_reaches_the_test_data(data_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "EvalBatches", lambda data, **settings: seen.update(settings, data=data))
    recipe = _recipe(data_path=str(data_path), image_mean=[1, 2, 3], image_std=[4, 5, 6], eval_batch_size=9)
    recipe.eval_batches(rank=1, size=4)
    assert len(seen.pop("data")) == 70
    assert seen == {"batch_size": 9, "mean": (1, 2, 3), "std": (4, 5, 6), "rank": 1, "size": 4}


def test_real_batches_have_the_shapes_that_the_network_takes(data_path):
    recipe = _recipe(data_path=str(data_path), batch_size=16, eval_batch_size=50)
    images, *_ = next(iter(recipe.eval_batches()))
    assert images.shape == (50, 3, recipe.image_size, recipe.image_size) and images.dtype == np.float32


PICTURE_KEYS = {
    "image_size": 40, "train_crop": "random_resized", "resize_size": 50, "crop_area": [0.5, 0.9],
    "crop_ratio": [0.8, 1.2], "interpolation": "area",
}  # fmt: skip


def test_every_picture_key_reaches_the_pictures(data_path, monkeypatch):
    seen = {}
    for name in ("PictureBatches", "PictureEvalBatches"):
        monkeypatch.setattr(module, name, lambda data, **settings: seen.update(settings, data=data))
    config = check({"data_path": str(data_path), "eval_crop": "centre", **PICTURE_KEYS}, SharedConfig)
    Recipe(config).train_batches()
    assert {name: seen[name] for name in PICTURE_KEYS} == {
        **PICTURE_KEYS, "crop_area": (0.5, 0.9), "crop_ratio": (0.8, 1.2),
    }  # fmt: skip
    assert seen["colour"] is seen["erasing"] is seen["policy"] is None
    seen.clear()
    Recipe(config).eval_batches(rank=1, size=4)
    assert len(seen.pop("data")) == 70
    assert seen == {
        "batch_size": 500, "rank": 1, "size": 4, "image_size": 40, "eval_crop": "centre",
        "interpolation": "area", "crop_percentage": 1.0, "normalise": (config.image_mean, config.image_std),
    }  # fmt: skip
    larger = config.model_copy(update={"eval_image_size": 48, "crop_percentage": 0.875})
    Recipe(larger).eval_batches()
    assert seen["image_size"] == 48 == Recipe(larger).image_size and seen["crop_percentage"] == 0.875
    assert Recipe(larger).resizing == {
        "crop": "centre", "interpolation": "area", "crop_percentage": 0.875,
    }  # fmt: skip
    assert _recipe().resizing == {"crop": "centre", "interpolation": "antialias"}


CHANGES = {
    "colour_jitter": [0.4, 0.3, 0.2, 0.1], "lighting": 0.1, "random_erasing": 0.25, "erasing_fill": "noise",
    "image_mean": [1, 2, 3], "image_std": [4, 5, 6], "autoaugment": "imagenet",
}  # fmt: skip


@pytest.mark.parametrize(("keys", "colour", "erasing"), [
    (CHANGES, ColourChange(jitter=(0.4, 0.3, 0.2, 0.1), lighting=0.1),
     Erasing(probability=0.25, noise=True, mean=(1, 2, 3), std=(4, 5, 6))),
    ({"lighting": 0.1}, ColourChange(lighting=0.1), None),
    ({"colour_jitter": [0, 0, 0, 0.1]}, ColourChange(jitter=(0, 0, 0, 0.1)), None),
    ({"random_erasing": 1}, None,
     Erasing(probability=1, noise=False, mean=(125.31, 122.95, 113.87), std=(62.99, 62.09, 66.70))),
])  # fmt: skip
def test_what_changes_pictures_reaches_them(data_path, monkeypatch, keys, colour, erasing):
    seen = {}
    monkeypatch.setattr(module, "PictureBatches", lambda data, **settings: seen.update(settings))
    Recipe(check({"data_path": str(data_path), **PICTURE_KEYS, **keys}, SharedConfig)).train_batches()
    assert (seen["colour"], seen["erasing"]) == (colour, erasing)
    assert seen["policy"] is (autoaugment if "autoaugment" in keys else None)


def test_every_source_key_reaches_the_source(monkeypatch):
    seen = {}
    source = ImageSet(np.zeros((6, 3, 32, 32), np.uint8), np.arange(6, dtype=np.int32) % 2, ("a", "b"))

    def spy(path, split, **settings):
        seen.update(settings, path=path, split=split)
        return source

    monkeypatch.setattr(module, "open_split", spy)
    keys = {"dataset": "cifar100", "val_fraction": 0.3, "subset_seed": 5, "damaged_images": "skip"}
    recipe = _recipe(data_path="/there", examples_per_class=2, **keys)
    assert np.bincount(recipe.source("train").labels).tolist() == [2, 2]
    assert seen == {
        "path": "/there", "split": "train", "dataset": "cifar100", "val_fraction": 0.3, "seed": 5,
        "damaged": "skip",
    }  # fmt: skip
    assert recipe.source("test") is source


def test_image_files_need_a_crop_of_pictures(monkeypatch):
    files = ImageFiles(("a.jpg",), np.zeros(1, np.int32), ("a",))
    monkeypatch.setattr(module, "open_split", lambda *_, **__: files)
    with pytest.raises(UserError, match=r"train_crop: pad is for sets of 32x32 images, .*use train_crop"):
        _recipe().source("train")


def test_pretrained_weights(monkeypatch, tmp_path, caplog):
    seen = []
    monkeypatch.setattr(module, "load_weights", lambda *given, head: seen.append((*given, head)))
    monkeypatch.setattr(module, "checksum", lambda path: "abc")
    _recipe().load_pretrained("network")
    assert not seen
    with caplog.at_level(logging.INFO):
        _recipe(pretrained_path="/w.npz", pretrained_head="keep").load_pretrained("network")
    assert seen == [("network", Path("/w.npz"), "keep")]
    assert "/w.npz, sha256 abc, classifier: keep" in caplog.text


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "none")):
        _recipe(data_path=str(tmp_path / "none")).train_batches()


def test_the_defaults_of_a_plain_classifier():
    recipe = Recipe(SharedConfig())
    assert isinstance(recipe.loss(), CrossEntropy)
    assert recipe.monitor("network", "inputs") is None
    with pytest.raises(AttributeError, match="network_class"):
        recipe.network(num_classes=10)
