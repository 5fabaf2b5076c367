# SPDX-License-Identifier: Apache-2.0
"""What a config says about the step is what the built step does."""

import numpy as np
import pytest

from src.layers.losses import CrossEntropy
from src.optim.optimizers import Adam
from src.training.build import build_train_step
from src.zoo import create_recipe


@pytest.fixture
def build(narrow_config, graph_mode):
    """(recipe, step) of a config; nothing is compiled."""

    def make(*, steps=10, cards=1, **keys):
        recipe = create_recipe(narrow_config(**keys))
        network = recipe.network(num_classes=4)
        return recipe, build_train_step(recipe, network, steps=steps, steps_per_epoch=5, cards=cards)

    return make


def test_defaults(build):
    recipe, step = build()
    assert step.network.training
    assert step.ema is None
    assert isinstance(step.loss, CrossEntropy)
    assert not step.loss_scale.active
    assert (step.accumulate_steps, step.clip_norm, step.cards) == (1, 0, 1)
    trained = {p.name for p in step.optimizer.parameters}
    assert trained == {p.name for p in step.network.trainable_params()}
    expected = recipe.rates(updates=10, updates_per_epoch=5, images_per_update=40)
    np.testing.assert_allclose(step.rates.asnumpy(), expected, rtol=1e-6)


def test_every_key_of_the_step_arrives(build):
    _, step = build(
        optimizer="adam", ema_decay=0.99, ema_warmup=False, clip_norm=2.0, accumulate_steps=2,
        loss_scale="dynamic", loss_scale_value=128.0, loss_scale_factor=4.0, loss_scale_window=7,
    )  # fmt: skip
    assert isinstance(step.optimizer, Adam)
    assert (step.ema.decay, step.ema.warmup) == (0.99, False)
    assert (step.clip_norm, step.accumulate_steps) == (2.0, 2)
    scale = step.loss_scale
    assert (scale.dynamic, float(scale.value.asnumpy()), scale.factor, scale.window) == (True, 128, 4, 7)


@pytest.mark.parametrize(("steps", "accumulate_steps", "updates"), [(10, 3, 3), (2, 4, 1), (12, 3, 4)])
def test_an_incomplete_accumulation_makes_no_update(build, steps, accumulate_steps, updates):
    _, step = build(steps=steps, accumulate_steps=accumulate_steps)
    assert step.rates.shape == (updates,)


def test_the_schedule_knows_the_images_of_an_update_and_the_updates_of_an_epoch(build):
    """Rates of a linear rule: 40 images x 2 batches x 3 cards are 6 times lr_base_batch."""
    _, step = build(steps=20, accumulate_steps=2, cards=3, lr_schedule="constant", warmup_epochs=0.0)
    np.testing.assert_allclose(step.rates.asnumpy(), np.full(10, 0.1 * 6), rtol=1e-6)
    _, step = build(
        steps=20, accumulate_steps=2, lr_schedule="multi_step", lr_milestones=[2.0], warmup_epochs=0.0
    )
    np.testing.assert_allclose(step.rates.asnumpy(), [0.2] * 5 + [0.02] * 5, rtol=1e-6)


def test_the_average_starts_from_the_weights_in_float32_under_mixed_precision(build):
    _, step = build(amp_level="O2", ema_decay=0.9)
    weights = {p.name: p.asnumpy() for p in step.network.get_parameters()}
    averages = {p.name.removeprefix("ema."): p.asnumpy() for p in step.ema.averages}
    assert averages.keys() == weights.keys()
    for name, value in averages.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, weights[name])
