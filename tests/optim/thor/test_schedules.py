# SPDX-License-Identifier: Apache-2.0
"""THOR's rates against the published loop, and the figures of its recipe."""

from pathlib import Path

import numpy as np
import pytest

from src.layers.conv import dense
from src.model_utils.config import check, load_config
from src.optim.groups import ParamGroup
from src.optim.keys import OptimizerKeys
from src.optim.optimizers import create_optimizer
from src.optim.thor.schedules import thor
from src.zoo import config_class_of

# Of the recipe for Ascend, with 100 updates an epoch.
PUBLISHED = {"lr": 0.045, "zero_step": 7000, "power": 6, "milestones": [3900, 4000], "gamma": 0.5}


def test_the_rates_are_those_of_the_published_loop():
    rates, expected = thor(4500, **PUBLISHED), []
    for i in range(4500):
        epoch = (i + 1) / 100
        rate = 0.045 * (1 - epoch / 70) ** 6
        if epoch >= 39:
            rate *= 0.5
        if epoch >= 40:
            rate *= 0.5
        expected.append(rate)
    assert rates.dtype == np.float64
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


@pytest.mark.parametrize(("epoch", "rate"), [(20, 0.00598), (39, 1.7e-4), (40, 7.0e-5), (45, 2.3e-5)])
def test_the_rates_at_some_epochs(epoch, rate):
    assert thor(4500, **PUBLISHED)[100 * epoch - 1] == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50_imagenet_thor", (0.045, 6, 70, 0.03, 0.87, 30, 45)),
        ("resnet50_imagenet_thor_gpu", (0.05672, 4.9687, 50, 0.02345, 0.5467, 32, 40)),
    ],
)
def test_the_recipes_have_the_published_figures(name, expected):
    path = Path(__file__).parents[3] / "configs" / "multigrain" / f"{name}.yaml"
    config = load_config({}, config_class_of=config_class_of, config_path=path)
    own = ["lr", "lr_power", "lr_zero_epoch", "thor_damping", "thor_damping_decay", "batch_size", "epochs"]
    assert tuple(getattr(config, key) for key in own) == expected
    assert config.lr_base_batch == 8 * config.batch_size
    shared = ["thor_every", "weight_decay", "momentum", "loss_scale_value", "lr_milestones", "lr_gamma"]
    assert [getattr(config, key) for key in shared] == [834, 5e-4, 0.9, 128, (39, 40), 0.5]


def test_the_end_of_the_run_is_zero_and_so_is_all_behind():
    np.testing.assert_allclose(
        thor(4, lr=1.0, zero_step=0, power=2, milestones=[], gamma=0.1), [9 / 16, 4 / 16, 1 / 16, 0]
    )
    np.testing.assert_allclose(
        thor(4, lr=1.0, zero_step=2.5, power=1, milestones=[2], gamma=0.5), [0.6, 0.1, 0, 0]
    )


def test_the_damping_of_the_recipe():
    """0.03 falls to 0.0160 in 45 epochs; each factor is damped by the root."""
    network = dense(in_channels=3, out_channels=2)
    keys = {"optimizer": "thor", "thor_damping": 0.03, "thor_damping_decay": 0.87}
    groups = [ParamGroup("all", tuple(network.trainable_params()), 0.0)]
    optimizer = create_optimizer(
        check(keys, OptimizerKeys), groups, network=network, updates=4500, updates_per_epoch=100.0
    )
    roots = optimizer.roots.asnumpy()
    epochs = (np.arange(4500) + 1) / 100
    np.testing.assert_allclose(roots**2, 0.03 * 0.87 ** (epochs / 10), rtol=1e-6)
    assert roots[-1] ** 2 == pytest.approx(0.0160, abs=5e-5)
