# SPDX-License-Identifier: Apache-2.0
"""BiT's keys reach the network, the weights, the data and the schedule; the hyper-rule fills in the rest."""

import logging

import numpy as np
import pytest

from src.bit import hyper_rule
from src.bit.config import BiTConfig
from src.bit.recipe import BiTRecipe
from src.common.errors import UserError
from src.data.crops import PictureCrops
from src.model_utils.config import check, load_config
from src.shared_config import SharedConfig
from src.zoo import config_class_of

TINY = {"block_units": [1, 1, 1, 1], "width_factor": 0.5, "image_size": 32, "resize_size": 36}


def recipe(**keys) -> BiTRecipe:
    return BiTRecipe(check(keys, BiTConfig))


def test_the_names_mean_the_published_structures():
    expected = {
        "bit_r50x1": ((3, 4, 6, 3), 1), "bit_r50x3": ((3, 4, 6, 3), 3), "bit_r101x1": ((3, 4, 23, 3), 1),
        "bit_r101x3": ((3, 4, 23, 3), 3), "bit_r152x2": ((3, 8, 36, 3), 2), "bit_r152x4": ((3, 8, 36, 3), 4),
    }  # fmt: skip
    for name, structure in expected.items():
        config = check({"model": name}, BiTConfig)
        assert (config.block_units, config.width_factor) == structure
    config = check({"model": "bit_r101x3", **TINY}, BiTConfig)
    assert (config.block_units, config.width_factor) == ((1, 1, 1, 1), 0.5)


def test_a_models_own_defaults_come_before_the_shared_ones(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("model: bit_r50x1\nlr: 0.5\n")
    config = load_config({"batch_size": 7}, config_class_of=config_class_of, config_path=file)
    assert (config.image_size, config.train_crop, config.weight_decay) == (128, "resize", 0.0)
    assert (config.lr, config.batch_size, config.epochs) == (0.5, 7, 24.0)
    assert load_config({"model": "resnet9"}, config_class_of=config_class_of).image_size == 32


def test_limits_of_the_shared_keys_stay():
    for name, value in {"lr": 0, "image_size": 0, "weight_decay": -1, "eval_batch_size": 0}.items():
        with pytest.raises(UserError, match=f"{name}: {value} given, allowed: a"):
            recipe(**{name: value})
    shared, own = SharedConfig.model_fields, BiTConfig.model_fields
    for name in shared:
        assert (
            own[name].description == shared[name].description and own[name].metadata == shared[name].metadata
        )


def test_a_folder_of_official_files(tmp_path):
    for name in ("BiT-M-R101x1.npz", "BiT-S-R101x1.npz"):
        (tmp_path / name).touch()
    keys = {"model": "bit_r101x1", "pretrained_path": str(tmp_path)}
    assert recipe(**keys).pretrained_file() == tmp_path / "BiT-M-R101x1.npz"
    assert recipe(**keys, pretrained_name="BiT-S-R101x1").pretrained_file() == tmp_path / "BiT-S-R101x1.npz"


def test_pictures_of_the_configs_sizes(data_path):
    keys = {
        **TINY,
        "data_path": str(data_path),
        "batch_size": 8,
        "eval_batch_size": 30,
        "eval_image_size": 40,
    }
    batches, tests = recipe(**keys).train_batches(), recipe(**keys).eval_batches()
    assert isinstance(batches.crops, PictureCrops) and tests.one_shape
    images, targets = batches.batch(0, 0)
    assert images.shape == (8, 3, 32, 32) and images.dtype == np.float32 and targets.shape == (8,)
    images, _, valid = list(tests)[-1]
    assert images.shape == (30, 3, 40, 40) and valid == 10 and recipe(**keys).image_size == 40


def test_a_card_gets_bytes(data_path, monkeypatch):
    keys = {**TINY, "data_path": str(data_path), "batch_size": 8, "eval_batch_size": 30}
    on_host = recipe(**keys).train_batches().batch(0, 0)[0]
    monkeypatch.setattr("src.recipe.on_cpu", lambda: False)
    images = recipe(**keys).train_batches().batch(0, 0)[0]
    assert images.shape == (8, 32, 32, 3) and images.dtype == np.uint8
    assert next(iter(recipe(**keys).eval_batches()))[0].dtype == np.uint8
    np.testing.assert_allclose(on_host, (images.transpose(0, 3, 1, 2) - 127.5) / 127.5, atol=1e-6)


def test_few_images_a_class(data_path):
    few = recipe(**TINY, data_path=str(data_path), examples_per_class=3).source("train")
    assert np.bincount(few.labels).tolist() == [3, 3, 3, 3]
    other = recipe(**TINY, data_path=str(data_path), examples_per_class=3, few_shot_seed=1).source("train")
    assert not np.array_equal(few.images, other.images)
    whole = recipe(**TINY, data_path=str(data_path), examples_per_class=3).source("test")
    assert len(whole) == 70


def test_the_hyper_rule_settles_what_depends_on_the_data(data_path):
    asked = recipe(hyper_rule=True, data_path=str(data_path), accumulate_steps=4)
    config = asked.settled().config
    assert (config.resize_size, config.image_size, config.mixup_alpha) == (160, 128, 0.0)
    assert config.train_steps == 500, "updates, however many batches are summed up to one"
    assert config.eval_every == config.save_every == 200, "ten times, where an epoch is one batch"
    rarely = recipe(hyper_rule=True, data_path=str(data_path), eval_every=999.0).settled().config
    assert rarely.eval_every == 999
    again = BiTRecipe(config).settled().config
    assert again == config, "a resumed run, or one by a saved config, is the same"
    assert recipe().settled().config == recipe().config


@pytest.mark.parametrize(("key", "given"), [("image_size", 96), ("resize_size", 192), ("mixup_alpha", 0.2)])
def test_a_key_beside_the_hyper_rule(data_path, key, given):
    with pytest.raises(
        UserError, match=f"{key}: {given} given, but hyper_rule sets it to .*hyper_rule false"
    ):
        recipe(hyper_rule=True, data_path=str(data_path), **{key: given}).settled()


@pytest.mark.parametrize("length", [{"train_steps": 50}, {"epochs": 2}])
def test_the_hyper_rule_scales_to_a_length_of_the_configs_own(data_path, length, caplog):
    settled = recipe(hyper_rule=True, data_path=str(data_path), batch_size=8, **length).settled()
    assert {name: getattr(settled.config, name) for name in length} == length
    with caplog.at_level(logging.INFO, "quartet"):
        rates = settled.rates(updates=50, updates_per_epoch=25, images_per_update=512)
    assert "hyper-rule: 50 updates in place of 500; its warm-up and decays scale with them" in caplog.messages
    np.testing.assert_array_equal(rates, hyper_rule.rates(200)[::10])


@pytest.mark.parametrize(("images", "lr"), [(512, 0.003), (128, 0.001)])
def test_the_hyper_rules_rates(data_path, images, lr):
    settled = recipe(hyper_rule=True, data_path=str(data_path)).settled()
    rates = settled.rates(updates=500, updates_per_epoch=1, images_per_update=images)
    np.testing.assert_allclose(rates, hyper_rule.rates(200, lr=lr))
    doubled = recipe(hyper_rule=True, data_path=str(data_path), lr=0.006).settled()
    twice = doubled.rates(updates=500, updates_per_epoch=1, images_per_update=images)
    np.testing.assert_allclose(twice, 2 * rates)


def test_without_the_hyper_rule_the_shared_schedules_hold():
    rates = recipe(lr_schedule="constant", lr=0.25).rates(
        updates=3, updates_per_epoch=1, images_per_update=512
    )
    np.testing.assert_array_equal(rates, [0.25] * 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_units": [1, 1]}, "block_units: .1, 1. given, allowed: a list of 4 whole numbers > 0$"),
        ({"width_factor": 0.3}, "width_factor: 0.3 given, allowed: a multiple of 0.5"),
        ({"train_crop": "pad"}, "image_size: 128 given, allowed: 32 with train_crop pad"),
        ({"resize_size": 100}, "resize_size: 100 given, allowed: 0, or at least image_size .128."),
        ({"cutout": 8}, "cutout: 8 given, allowed: only with train_crop pad"),
        ({"crop_area": [0.5, 0.2]}, "crop_area: .0.5, 0.2. given"),
        ({"crop_ratio": [0, 1]}, "crop_ratio: .0.0, 1.0. given"),
    ],
)
def test_bad_keys(keys, message):
    with pytest.raises(UserError, match=message):
        recipe(**keys)
