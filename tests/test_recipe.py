# SPDX-License-Identifier: Apache-2.0
"""A config's keys become data, schedule and parameter groups as their meanings say."""

import logging
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src import recipe as module
from src.common.errors import UserError
from src.data.binary import ImageSet
from src.layers.losses import CrossEntropy
from src.model_utils.config import check
from src.optim import schedules
from src.optim.optimizers import SGD, AdamW
from src.recipe import Recipe
from src.resnet9.config import ResNet9Config
from src.shared_config import SharedConfig
from src.zoo import recipe_class_of

RESNET9 = recipe_class_of("resnet9")

RATES = {"lr": 0.3, "lr_schedule": "cosine", "warmup_epochs": 4}


def _recipe(**keys) -> RESNET9:
    return RESNET9(check(keys, ResNet9Config))


def _rates(*, images=512, **keys) -> np.ndarray:
    return _recipe(**RATES, **keys).rates(updates=45, updates_per_epoch=2.5, images_per_update=images)


@pytest.mark.parametrize(
    ("rule", "images", "factor"),
    [
        ("none", 2048, 1), ("linear", 2048, 4), ("sqrt", 2048, 2), ("linear", 128, 0.25), ("sqrt", 128, 0.5),
        ("linear", 768, 1.5),  # cifar10-fast's experiments.ipynb: 0.4 for 512 images, 0.6 for 768
        ("decoupled", 1024, 2 / 11),  # airbench: over 1 + 1 / (1 - 0.9)
    ],
)  # fmt: skip
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
    assert list(groups) == ["biases", "scales", "weights", "classifier"]
    names = {name: [parameter.name for parameter in group.parameters] for name, group in groups.items()}
    assert [len(names[name]) for name in names] == [8, 8, 8, 1]
    assert all(name.endswith(".bn.beta") for name in names["biases"])
    assert all(name.endswith(".bn.gamma") for name in names["scales"])
    assert names["classifier"] == ["linear.weight"]
    assert all(name.endswith(".conv.weight") for name in names["weights"])


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
    assert tuple(group.weight_decay for group in groups) == (*decays, decays[-1])
    assert tuple(group.lr_multiplier for group in groups) == (*multipliers, multipliers[-1])


def test_the_optimizer_updates_all_trainable_parameters(network):
    optimizer = _recipe(momentum=0.8, nesterov=False).optimizer(network, CrossEntropy())
    assert isinstance(optimizer, SGD)
    assert abs(optimizer.momentum - 0.8) < 1e-7 and optimizer.nesterov is False
    assert {p.name for p in optimizer.parameters} == {p.name for p in network.trainable_params()}


def test_the_optimizer_updates_the_parameters_of_the_loss_too(network):
    loss = nn.Cell()
    loss.beta = ms.Parameter(ms.Tensor(1.2, ms.float32), name="loss.beta")
    optimizer = _recipe(optimizer="adamw").optimizer(network, loss)
    assert type(optimizer) is AdamW
    assert any(parameter is loss.beta for parameter in optimizer.parameters)
    with pytest.raises(TypeError, match="loss"):
        _recipe().optimizer(network)


# --- data, loss and network


def _image_set(count: int) -> ImageSet:
    labels = np.arange(count, dtype=np.int32) % 2
    return ImageSet(np.zeros((count, 3, 32, 32), np.uint8), labels, ("a", "b"))


def test_images_can_be_given():
    given = {"train": _image_set(6), "test": _image_set(4)}
    recipe = RESNET9(check({"data_path": "/none", "batch_size": 3}, ResNet9Config), given)
    assert recipe.source("train") is given["train"] and recipe.source("test") is given["test"]
    assert len(recipe.train_batches()) == 2 and len(recipe.eval_batches()) == 1


def test_a_changed_recipe_keeps_its_images_unless_others_are_given():
    given = {"train": _image_set(6), "test": _image_set(4)}
    recipe = RESNET9(check({}, ResNet9Config), given)
    changed = recipe.changed(seed=7)
    assert type(changed) is RESNET9 and (recipe.config.seed, changed.config.seed) == (0, 7)
    assert changed.source("test") is given["test"]
    others = recipe.changed(sources={"test": _image_set(2)})
    assert len(others.source("test")) == 2 and len(recipe.source("test")) == 4


def test_real_batches_have_the_shapes_that_the_network_takes(data_path):
    recipe = _recipe(data_path=str(data_path), batch_size=16, eval_batch_size=50)
    images, *_ = next(iter(recipe.eval_batches()))
    assert images.shape == (50, 3, recipe.image_size, recipe.image_size) and images.dtype == np.float32


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
