# SPDX-License-Identifier: Apache-2.0
"""The updates of BiT's RandAugment recipe, from the config's keys, against float64 written out by hand.

RMSProp with epsilon 1.0 under the root, weight decay on weights alone, clipping before the optimizer, a rate
that warms up and falls in stairs, and an average without warm-up.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.model_utils.config import check
from src.resnet9.config import ResNet9Config
from src.training.build import build_train_step
from src.training.ema import EMA
from src.zoo import recipe_class_of

RESNET9 = recipe_class_of("resnet9")

KEYS = {
    "lr": 0.02, "lr_start": 0.0, "lr_schedule": "exponential", "epochs": 200, "warmup_epochs": 6,
    "lr_every": 2.5, "lr_gamma": 0.98, "optimizer": "rmsprop", "momentum": 0.9, "rmsprop_decay": 0.9,
    "optimizer_eps": 1.0, "weight_decay": 4e-5, "decay_norm_and_bias": False, "clip_norm": 1.0,
    "ema_decay": 0.9999, "ema_warmup": False,
}  # fmt: skip
STEPS, STEPS_PER_EPOCH = 30, 2
SHAPES = {"weight": (5, 3), "gamma": (5,), "bias": (3,)}
WEIGHTS_WITHIN, AVERAGES_WITHIN = 1e-5, 5e-6


def rates_by_hand(steps, steps_per_epoch):
    warmup, every = 6 * steps_per_epoch, int(2.5 * steps_per_epoch)
    found, rate, stair = [], 0.02, 0
    for i in range(steps):
        if i < warmup:
            found.append(0.02 * i / warmup)
            continue
        if stair == every:
            rate, stair = rate * 0.98, 0
        found.append(rate)
        stair += 1
    return np.array(found)


def test_the_whole_schedule_from_the_config():
    """97 steps an epoch: 582 steps of warm-up, stairs of 242, 19,400 in all."""
    recipe = RESNET9(check(KEYS, ResNet9Config))
    found = recipe.rates(updates=19_400, updates_per_epoch=97, images_per_update=512)
    assert found.shape == (19_400,) and found[0] == 0
    np.testing.assert_allclose(found, rates_by_hand(19_400, 97), rtol=1e-12)
    np.testing.assert_allclose(
        found[[291, 581, 582, 823, 824, 1065, 1066]],
        [0.01, 0.02 * 581 / 582, 0.02, 0.02, 0.0196, 0.0196, 0.019208],
        rtol=1e-12,
    )
    assert round(found[-1], 5) == 0.00422


class Scaled(nn.Cell):
    """(gamma * x) W + b, (N, 5) -> (N, 3)."""

    def __init__(self):
        super().__init__()
        for name, value in start().items():
            setattr(self, name, ms.Parameter(value, name=name))

    def construct(self, x):
        return ops.matmul(x * self.gamma, self.weight) + self.bias


def start():
    """Weights so large that their decay shows, float32 by name."""
    rng = np.random.default_rng(3)
    return {name: rng.normal(0, 3, shape).astype(np.float32) for name, shape in SHAPES.items()}


def batch(number):
    """Images (6, 5) and soft targets (6, 3); every third batch is so dark that its gradients are small."""
    rng = np.random.default_rng([8, number])
    images = (2.0 if number % 3 else 0.02) * rng.normal(size=(6, 5))
    return images.astype(np.float32), rng.dirichlet(np.ones(3), 6).astype(np.float32)


def gradients(w, x, targets):
    x = x.astype(np.float64)
    logits = (x * w["gamma"]) @ w["weight"] + w["bias"]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (shares / shares.sum(axis=1, keepdims=True) - targets) / len(x)
    return {
        "weight": (x * w["gamma"]).T @ error,
        "gamma": (x * (error @ w["weight"].T)).sum(axis=0),
        "bias": error.sum(axis=0),
    }


def run_by_hand(
    *,
    eps_in_root=1.0,
    eps_outside=0.0,
    decayed=("weight",),
    clip=1.0,
    decay_before_clip=False,
    ema_warmup=False,
):
    """Float64 weights, averages and gradient norms of STEPS updates; arguments make it another formula."""
    w = {name: value.astype(np.float64) for name, value in start().items()}
    average = {name: value.copy() for name, value in w.items()}
    square = {name: np.ones_like(value) for name, value in w.items()}
    moment = {name: np.zeros_like(value) for name, value in w.items()}
    norms = []
    for i, rate in enumerate(rates_by_hand(STEPS, STEPS_PER_EPOCH)):
        found = gradients(w, *batch(i))
        decay = {name: 4e-5 * w[name] if name in decayed else 0.0 for name in w}
        if decay_before_clip:
            found = {name: g + decay[name] for name, g in found.items()}
            decay = dict.fromkeys(w, 0.0)
        norms.append(np.sqrt(sum((g**2).sum() for g in found.values())))
        factor = min(1.0, clip / norms[-1])
        share = min(0.9999, (2 + i) / (11 + i)) if ema_warmup else 0.9999
        for name in w:
            g = found[name] * factor + decay[name]
            square[name] = 0.9 * square[name] + 0.1 * g**2
            moment[name] = 0.9 * moment[name] + rate * g / (np.sqrt(square[name] + eps_in_root) + eps_outside)
            w[name] = w[name] - moment[name]
            average[name] = share * average[name] + (1 - share) * w[name]
    return w, average, norms


@pytest.fixture(scope="module")
def trained():
    """The parameters of a train step of the config after STEPS batches, by name, and its gradient norms."""
    ms.set_context(mode=ms.GRAPH_MODE)
    recipe = RESNET9(check(KEYS, ResNet9Config))
    step = build_train_step(recipe, Scaled(), steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH, cards=1)
    norms = [float(step(*map(ms.Tensor, batch(i)))[3].asnumpy()) for i in range(STEPS)]
    return {p.name: p.asnumpy().astype(np.float64) for p in step.get_parameters()}, norms


def difference(one, other):
    return max(np.abs(one[name] - other[name]).max() for name in SHAPES)


def test_thirty_updates_follow_the_formulas(trained):
    found, norms = trained
    weights, averages, expected_norms = run_by_hand()
    np.testing.assert_allclose(norms, expected_norms, rtol=2e-5)
    assert min(norms) < 0.9 and max(norms) > 10, "some updates are clipped and some are not"
    assert difference(found, weights) < WEIGHTS_WITHIN
    assert difference({name: found[f"ema.{name}"] for name in SHAPES}, averages) < AVERAGES_WITHIN


@pytest.mark.parametrize(
    "other",
    [
        {"eps_in_root": 0.0, "eps_outside": 1.0},
        {"eps_in_root": 1e-8},
        {"decayed": ()},
        {"decayed": ("weight", "gamma", "bias")},
        {"clip": np.inf},
        {"decay_before_clip": True},
    ],
    ids=str,
)
def test_the_comparison_would_tell_another_formula(other):
    assert difference(run_by_hand(**other)[0], run_by_hand()[0]) > 20 * WEIGHTS_WITHIN


def test_the_comparison_would_tell_another_average():
    _, averages, _ = run_by_hand()
    assert difference(run_by_hand(ema_warmup=True)[1], averages) > 20 * AVERAGES_WITHIN
    assert difference(start(), averages) > 20 * AVERAGES_WITHIN


def test_the_average_holds_on_to_the_first_weights(graph_mode):
    """After n updates 0.9999 ** n of them is left, with no correction for it."""
    network = Scaled()
    ema = EMA(network, decay=0.9999, warmup=False)
    for parameter in network.get_parameters():
        parameter.set_data(ops.zeros_like(parameter))
    updates = 0
    for count, share in [(1, 0.9999), (2, 0.99980001), (100, 0.9900493387), (1000, 0.9048328936)]:
        while updates < count:
            updates += 1
            ema(ms.Tensor(updates, ms.float32))
        for average in ema.averages:
            expected = share * start()[average.name.removeprefix("ema.")]
            np.testing.assert_allclose(average.asnumpy(), expected, rtol=5e-5)
