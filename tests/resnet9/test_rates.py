# SPDX-License-Identifier: Apache-2.0
"""The published recipes in keys: every rate and decay of every update as the official code has it.

Their loss is summed over the B images of a batch and ours is a mean, whose gradient is 1 / B of theirs: our
rate is B times theirs, our decay 1 / B of theirs, and the update the same.
"""

import numpy as np
import pytest

from src.model_utils.config import load_config
from src.zoo import config_class_of, create_recipe

MUON = {
    "optimizer": "muon", "lr_schedule": "linear", "warmup_epochs": 0.0, "lr_scale_rule": "linear",
    "decoupled_decay": True,
}  # fmt: skip
AIRBENCH94_MUON = {
    **MUON, "batch_size": 2000, "lr_base_batch": 2000, "lr": 106.0, "head_lr": 1340.0, "muon_lr": 0.24,
    "momentum": 0.85, "weight_decay": 4e-3, "whitening_bias_epochs": 3.0, "epochs": 8.0,
}  # fmt: skip
HIVERGE = {
    **MUON, "batch_size": 1536, "lr_base_batch": 1536, "lr": 88.0128, "head_lr": 831.744, "muon_lr": 0.205,
    "momentum": 0.825, "weight_decay": 1.0418e-6 * 1536, "muon_weight_decay": 1.0418e-6 * 1536,
    "whitening_bias_epochs": 0.19, "epochs": 7.59,
}  # fmt: skip
AIRBENCH94 = {
    "batch_size": 1024, "lr_base_batch": 1024, "lr_scale_rule": "decoupled", "lr": 11.5, "momentum": 0.85,
    "weight_decay": 0.0153, "decoupled_decay": True, "bias_lr_multiplier": 64.0, "train_steps": 476,
    "lr_schedule": "linear", "lr_start": 2.3, "warmup_epochs": 109 / 48, "lr_end": 0.805,
    "whitening_bias_epochs": 3.0, "freeze_course": "cut",
}  # fmt: skip


def trained(keys, *, updates, updates_per_epoch):
    """name -> (rate of each update, weight decay), as the optimizer of these keys has them."""
    config = load_config({"model": "cifarnet", "widths": [4, 4, 4], **keys}, config_class_of=config_class_of)
    recipe = create_recipe(config)
    rates = recipe.rates(
        updates=updates, updates_per_epoch=updates_per_epoch, images_per_update=config.batch_size
    )
    network = recipe.network(num_classes=3)
    optimizer = recipe.optimizer(network, recipe.loss(), rates=rates, updates_per_epoch=updates_per_epoch)
    found = {}
    for i, parameter in enumerate(optimizer.parameters):
        own = optimizer.own[i]
        course = rates if own < 0 else optimizer.own_rates[own].asnumpy()
        found[parameter.name] = course * optimizer.lr_multiplier[i], optimizer.weight_decay[i]
    return found, optimizer


def kind_of(name):
    if name == "whiten.bias":
        return "whitening bias"
    if name.startswith("linear."):
        return "head"
    return "norm bias" if name.endswith("beta") else "filter"


@pytest.mark.parametrize(
    ("keys", "batch", "updates", "per_epoch", "bias_lr", "head_lr", "filter_lr", "wd", "whiten_updates"),
    [
        (AIRBENCH94_MUON, 2000, 200, 25, 0.053, 0.67, 0.24, 2e-6 * 2000, 75),
        (HIVERGE, 1536, 243, 32, 0.0573, 0.5415, 0.205, 1.0418e-6 * 1536, 7),
    ],
    ids=["airbench94_muon", "hiverge"],
)
def test_muon_recipes(keys, batch, updates, per_epoch, bias_lr, head_lr, filter_lr, wd, whiten_updates):
    found, optimizer = trained(keys, updates=updates, updates_per_epoch=per_epoch)
    course = 1 - np.arange(updates) / updates
    whiten = 1 - np.arange(whiten_updates) / whiten_updates
    expected = {
        "whitening bias": (batch * bias_lr * whiten, wd / bias_lr / batch),
        "norm bias": (batch * bias_lr * course, wd / bias_lr / batch),
        "head": (batch * head_lr * course, wd / head_lr / batch),
        "filter": (filter_lr * course, None),
    }
    assert {kind_of(name) for name in found} == expected.keys()
    for name, (rates, decay) in found.items():
        official_rates, official_decay = expected[kind_of(name)]
        np.testing.assert_allclose(rates, official_rates, rtol=1e-6, atol=1e-9, err_msg=name)
        if official_decay is not None:
            assert decay == pytest.approx(official_decay, rel=1e-12)
    assert optimizer.filter_decay == pytest.approx(wd if keys is HIVERGE else 0)
    assert optimizer.ends == (whiten_updates,)


def test_decoupled_hyper_parameters_give_the_update_of_airbench94():
    """Five updates of `torch.optim.SGD` on the summed loss, written out in float64, and ours on the mean."""
    batch, momentum, updates, warmup = 1024, 0.85, 476, 109
    kilostep = 1024 * (1 + 1 / (1 - momentum))
    lr = 11.5 / kilostep
    wd = 0.0153 * batch / kilostep
    found, optimizer = trained(AIRBENCH94, updates=updates, updates_per_epoch=48)
    assert optimizer.ends == (144,)
    rng = np.random.default_rng(0)
    for name, factor in [("group1.0.conv.weight", 1), ("group1.0.bn.beta", 64), ("whiten.bias", 1)]:
        w = theirs = rng.normal(size=8)
        v = their_v = np.zeros(8)
        rates, decay = found[name]
        for step in (0, 1, 2, 107, 108, 109, 110, 143, *([] if name == "whiten.bias" else [300, 475])):
            gradient = 0.1 * rng.normal(size=8)
            height = 0.2 + 0.8 * step / warmup
            if step >= warmup:
                done = (step - warmup) / (updates - warmup)
                height = 1 - done + 0.07 * done
            g = batch * gradient + wd / (lr * factor) * theirs
            their_v = momentum * their_v + g
            theirs = theirs - lr * factor * height * (g + momentum * their_v)
            g = gradient + decay * w
            v = momentum * v + g
            w = w - rates[step] * (g + momentum * v)
            np.testing.assert_allclose(w, theirs, rtol=1e-5, err_msg=f"{name} at {step}")
    assert len(found["whiten.bias"][0]) == 144
