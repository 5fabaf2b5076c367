# SPDX-License-Identifier: Apache-2.0
"""The train step is its formula: against float64, in accumulation, through a restart, in float16."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.losses import CrossEntropy
from src.layers.norm import batch_norm2d
from src.layers.pixels import Pixels
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD
from src.training.ema import EMA
from src.training.loss_scale import LossScale
from src.training.precision import set_precision
from src.training.train_step import TrainStep

RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.25, 0.15, 0.35])


class SmallConvNet(nn.Cell):
    """Convolution, normalisation if asked for, ReLU, mean, dense: (N, 3, 8, 8) -> (N, 3)."""

    def __init__(self, *, normalise):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=6, kernel_size=3)
        self.bn = batch_norm2d(channels=6) if normalise else None
        self.linear = dense(in_channels=6, out_channels=3)
        initialise(self, seed=1, weight=torch_default)

    def construct(self, x):
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return self.linear(ops.relu(x).mean((2, 3)))


def conv_step(*, normalise, amp_level="O0", rates=RATES, loss_scale=None, **settings):
    network = SmallConvNet(normalise=normalise)
    optimizer = SGD(
        [ParamGroup("all", tuple(network.trainable_params()), weight_decay=1e-3)], momentum=0.9, nesterov=True
    )
    network = set_precision(network, amp_level)
    step = TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        CrossEntropy(),
        optimizer,
        rates=rates,
        loss_scale=loss_scale or LossScale("none"),
        **settings,
    )
    return step.set_train(True)


def image_batch(number, *, count):
    """Noise, with one channel brighter by the label."""
    rng = np.random.default_rng([5, number])
    labels = rng.integers(0, 3, count)
    images = rng.normal(size=(count, 3, 8, 8)).astype(np.float32)
    images[np.arange(count), labels] += 1.0
    return images, np.eye(3, dtype=np.float32)[labels]


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, None),
        ({"accumulate_steps": 3, "clip_norm": 0.2}, None),
        ({"clip_norm": 0.25}, {"mode": "fixed", "value": 1000.0}),
        ({"accumulate_steps": 2}, {"mode": "dynamic", "value": 512.0, "window": 2}),
    ],
    ids=["plain", "accumulate and clip", "fixed scale and clip", "dynamic scale and accumulate"],
)
def test_several_batches_match_the_oracle(linear_step, linear_oracle, linear_batch, call, settings, scale):
    step = linear_step(rates=RATES, loss_scale=LossScale(**scale) if scale else None, **settings)
    oracle = linear_oracle(rates=RATES, **settings)
    norms = []
    for number in range(7):
        batch = linear_batch(number)
        loss, _, overflow, norm = call(step, batch)
        expected_loss, expected_norm = oracle(*batch)
        assert overflow == 0
        np.testing.assert_allclose([loss, norm], [expected_loss, expected_norm], rtol=2e-5)
        np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)
        np.testing.assert_allclose(step.network.bias.asnumpy(), oracle.weights[1], rtol=2e-5, atol=5e-6)
        norms.append(norm)
    updates = 7 // settings.get("accumulate_steps", 1)
    assert int(step.updates.asnumpy()) == int(step.applied.asnumpy()) == oracle.updates == updates
    if "clip_norm" in settings:
        assert max(norms) > settings["clip_norm"], "the case must clip"


def test_integer_labels_train_like_one_hot_targets(linear_step, linear_batch, call):
    labels = np.array([0, 2, 1, 1, 0, 2], np.int32)
    x, _ = linear_batch(0)
    by_label, by_target = linear_step(rates=RATES), linear_step(rates=RATES)
    first = call(by_label, (x, labels))
    assert first == pytest.approx(call(by_target, (x, np.eye(3, dtype=np.float32)[labels])), rel=1e-6)
    np.testing.assert_allclose(
        by_label.network.weight.asnumpy(), by_target.network.weight.asnumpy(), rtol=1e-6
    )


@pytest.mark.parametrize("batches", [2, 4])
def test_accumulated_batches_are_one_large_batch(graph_mode, call, state, batches):
    many = conv_step(normalise=False, accumulate_steps=batches)
    one = conv_step(normalise=False)
    for number in range(2):
        images, targets = image_batch(number, count=8 * batches)
        whole = call(one, (images, targets))
        parts = [
            call(many, part)
            for part in zip(np.split(images, batches), np.split(targets, batches), strict=True)
        ]
        assert np.mean([part[0] for part in parts]) == pytest.approx(whole[0], rel=1e-6)
        assert parts[-1][3] == pytest.approx(whole[3], rel=1e-5)
    expected = state(one)
    for name, value in state(many).items():
        if name in expected and not name.startswith("train."):
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert int(many.updates.asnumpy()) == int(one.updates.asnumpy()) == 2


def test_a_restart_between_updates_changes_no_bit(linear_step, linear_batch, call):
    """Of the state alone: the partial sums of another accumulation are not part of it."""

    def build():
        return linear_step(
            rates=RATES,
            accumulate_steps=3,
            clip_norm=0.3,
            loss_scale=LossScale("dynamic", value=256.0, window=2),
            ema=lambda network: EMA(network, decay=0.9, warmup=True),
        )

    def copies(step):
        return {p.name: p.asnumpy().copy() for p in step.state}

    through = build()
    for number in range(9):
        call(through, linear_batch(number))
        if number == 5:
            saved = copies(through)
    restarted = build()
    for parameter in restarted.state:
        parameter.set_data(ms.Tensor(saved[parameter.name]))
    for number in range(6, 9):
        call(restarted, linear_batch(number))
    expected = copies(through)
    assert expected["train.updates"] == 3
    for name, value in copies(restarted).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("before", [0, 6])
def test_lookahead_in_a_run_with_evaluations(linear_step, linear_oracle, linear_batch, call, before):
    """Whatever looks at the average between updates leaves the weights, and what they become, alone.

    before: updates that the first two were, of a run that went on with more images each.
    """
    lookahead = {"decay": 0.95, "warmup": True, "every": 3, "lookahead": True}
    step = linear_step(rates=RATES, ema=lambda network: EMA(network, **lookahead))
    oracle = linear_oracle(rates=RATES)
    slow = [w.copy() for w in oracle.weights]
    first = 2 if before else 0
    step.start_at(first)
    step.applied.set_data(ms.Tensor(before, ms.int32))
    oracle.updates = first
    for count in range(first + 1, 9):
        call(step, linear_batch(count))
        oracle(*linear_batch(count))
        if (count - first + before) % 3 == 0:
            decay = 0.95**3 * (count / 8) ** 3
            slow = [decay * s + (1 - decay) * w for s, w in zip(slow, oracle.weights, strict=True)]
            oracle.weights = [s.copy() for s in slow]
        with step.ema.applied():
            np.testing.assert_allclose(step.network.weight.asnumpy(), slow[0], rtol=2e-5, atol=5e-6)
        np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)
        np.testing.assert_allclose(step.network.bias.asnumpy(), oracle.weights[1], rtol=2e-5, atol=5e-6)


def test_an_incomplete_accumulation_leaves_the_state_alone(linear_step, linear_batch, call):
    step = linear_step(rates=RATES, accumulate_steps=3)
    names = {p.name for p in step.state}
    assert {p.name for p in step.get_parameters()} - names == {
        "accumulated.weight", "accumulated.bias", "accumulated.batches", "accumulated.overflows",
    }  # fmt: skip
    before = [p.asnumpy().copy() for p in step.state]
    for number in range(2):
        call(step, linear_batch(number))
    for parameter, value in zip(step.state, before):
        np.testing.assert_array_equal(parameter.asnumpy(), value, err_msg=parameter.name)
    call(step, linear_batch(2))
    assert step.updates.asnumpy() == 1


def test_a_step_starts_at_an_update_of_the_schedule(linear_step, linear_oracle, linear_batch, call):
    step, oracle = linear_step(rates=RATES), linear_oracle(rates=RATES)
    step.start_at(4)
    oracle.updates = 4
    call(step, linear_batch(0))
    oracle(*linear_batch(0))
    np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)


class InParts(nn.Cell):
    """The cross-entropy with two parts: its triple, and a number that is not of the loss's size."""

    parts = ("triple", "seven")

    def __init__(self):
        super().__init__()
        self.whole = CrossEntropy()

    def construct(self, logits, targets):
        loss = self.whole(logits, targets)
        return loss, 3 * loss, ops.full_like(loss, 7.0)


def test_the_parts_of_a_loss_come_back_unscaled_and_change_no_bit(linear_step, linear_batch, call, state):
    settings = {"rates": RATES, "accumulate_steps": 2, "clip_norm": 0.5}
    plain = linear_step(loss_scale=LossScale("fixed", value=1024.0), **settings)
    step = linear_step(loss=InParts(), loss_scale=LossScale("fixed", value=1024.0), **settings)
    for number in range(4):
        expected = call(plain, linear_batch(number))
        assert call(step, linear_batch(number)) == (*expected, pytest.approx(3 * expected[0]), 7)
    for name, value in state(plain).items():
        np.testing.assert_array_equal(state(step)[name], value, err_msg=name)


def test_clipping_looks_at_the_mean_of_the_accumulated_gradients(linear_step, linear_oracle, call):
    """Two batches with nearly opposite gradients: each one's norm is over the limit, their mean's is not."""
    rng = np.random.default_rng(3)
    x = 5 * rng.normal(size=(6, 5)).astype(np.float32)
    oracle = linear_oracle(rates=RATES)
    logits = x @ oracle.weights[0] + oracle.weights[1]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = rng.normal(size=probabilities.shape) * 0.02
    error -= error.mean(axis=1, keepdims=True)
    halves = [(x, (probabilities + share * error).astype(np.float32)) for share in (1, -0.8)]
    norms = [np.sqrt(sum((g**2).sum() for g in oracle.gradients(*half)[1])) for half in halves]
    limit = min(norms) * 0.9

    clipped = linear_step(rates=RATES, accumulate_steps=2, clip_norm=limit)
    free = linear_step(rates=RATES, accumulate_steps=2)
    for half in halves:
        results = call(clipped, half), call(free, half)
    assert results[0] == pytest.approx(results[1])
    assert results[0][3] < limit
    np.testing.assert_allclose(clipped.network.weight.asnumpy(), free.network.weight.asnumpy(), rtol=1e-6)


def test_the_returned_norm_is_before_clipping(linear_step, linear_batch, call):
    free, clipped = linear_step(rates=RATES), linear_step(rates=RATES, clip_norm=1e-3)
    assert call(free, linear_batch(0))[3] == call(clipped, linear_batch(0))[3] > 0.1


def test_the_last_rate_stays_when_updates_go_beyond_the_schedule(
    linear_step, linear_oracle, linear_batch, call
):
    rates = np.array([0.1, 0.5])
    step, oracle = linear_step(rates=rates), linear_oracle(rates=rates)
    for number in range(5):
        call(step, linear_batch(number))
        oracle(*linear_batch(number))
    np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)


def test_parameters_keep_their_own_names(linear_step):
    step = linear_step(
        rates=RATES, accumulate_steps=2, ema=lambda network: EMA(network, decay=0.9, warmup=False)
    )
    assert {p.name for p in step.get_parameters()} == {
        "weight", "bias", "optim.velocity.weight", "optim.velocity.bias", "ema.weight", "ema.bias",
        "accumulated.weight", "accumulated.bias", "accumulated.batches", "accumulated.overflows",
        "train.updates", "train.applied",
        "loss_scale.value", "loss_scale.good_updates",
    }  # fmt: skip
    assert {p.name for p in step.trainable_params()} == {"weight", "bias"}


def test_a_float16_network_trains_and_stays_finite(graph_mode, call, state):
    """The first scale is too large for float16: the step must find a smaller one, and then learn."""
    step = conv_step(
        normalise=True,
        amp_level="O2",
        rates=np.full(30, 0.2),
        loss_scale=LossScale("dynamic", value=2.0**24, window=1000),
        ema=None,
    )
    rows = [call(step, image_batch(number % 4, count=32)) for number in range(30)]
    losses, scales, overflows, _ = (np.array(column) for column in zip(*rows))
    assert np.isfinite(losses).all()
    assert overflows[0] == 1
    assert overflows[-10:].sum() == 0
    assert 1 <= scales[-1] < 2.0**24
    assert int(step.applied.asnumpy()) == 30 - overflows.sum() > 15
    assert losses[-4:].mean() < 0.5 * losses[:4].mean()
    for name, value in state(step).items():
        assert np.isfinite(value).all(), name
        assert value.dtype in (np.float32, np.int32), name
