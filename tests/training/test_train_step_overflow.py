# SPDX-License-Identifier: Apache-2.0
"""A gradient that is not finite changes nothing but the schedule's place and the loss scale."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.losses import CrossEntropy
from src.layers.norm import batch_norm2d
from src.layers.pixels import Pixels
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD, Adam
from src.training.ema import EMA
from src.training.loss_scale import LossScale
from src.training.train_step import TrainStep

RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.25])


class Normalised(nn.Cell):
    """(N, 3, H, W) -> (N, 3); its input is what is normalised."""

    def __init__(self):
        super().__init__()
        self.bn = batch_norm2d(channels=3)

    def construct(self, x):
        return ops.relu(self.bn(x)).mean((2, 3))


def spoil(batch, value):
    x, targets = batch
    x = x.copy()
    x[2, 1] = value
    return x, targets


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_overflow_changes_no_bit_but_the_counter(linear_step, linear_batch, call, state, value):
    step = linear_step(rates=RATES, clip_norm=0.5, ema=lambda network: EMA(network, decay=0.9, warmup=True))
    call(step, linear_batch(0))
    before = state(step)
    overflow = call(step, spoil(linear_batch(1), value))[2]
    after = state(step)
    assert overflow == 1
    assert after.pop("train.updates") == before.pop("train.updates") + 1
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def normalised_step(*, rate=1e-6, loss_scale=None, accumulate_steps=1):
    network = Normalised()
    return TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        CrossEntropy(),
        SGD([ParamGroup("all", tuple(network.trainable_params()), 0.0)], momentum=0.0, nesterov=False),
        rates=np.full(4, rate),
        loss_scale=loss_scale or LossScale("none"),
        accumulate_steps=accumulate_steps,
    ).set_train(True)


def normalised_batch(rng):
    x = rng.normal(size=(6, 3, 2, 2)).astype(np.float32)
    return x, np.eye(3, dtype=np.float32)[rng.integers(0, 3, 6)]


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_running_statistics_forget_a_batch_with_an_overflow(graph_mode, call, value, accumulate_steps):
    """ReLU turns the NaN that such a batch makes of the normalised values into 0: the loss is finite."""
    step = normalised_step(accumulate_steps=accumulate_steps)
    rng = np.random.default_rng(1)
    mean, variance = np.zeros(3), np.ones(3)
    for number in range(4):
        x, targets = normalised_batch(rng)
        bad = number == 1
        if bad:
            x[0, 0, 0, 0] = value
        else:
            mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
            variance = 0.9 * variance + 0.1 * x.var((0, 2, 3)) * 24 / 23
        loss, _, _, norm = call(step, (x, targets))
        assert np.isfinite(loss)
        if accumulate_steps == 1 or number == 1:
            assert np.isfinite(norm) == (not bad)
        np.testing.assert_allclose(step.network.bn.moving_mean.asnumpy(), mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.network.bn.moving_variance.asnumpy(), variance, rtol=1e-5, atol=1e-6)


def test_a_loss_scale_that_squares_beyond_float32_does_not_freeze_the_statistics(graph_mode, call):
    """The scaled gradients are finite and their squares are not."""
    step = normalised_step(loss_scale=LossScale("fixed", value=2.0**80))
    x, targets = normalised_batch(np.random.default_rng(1))
    assert call(step, (x, targets))[2] == 0
    np.testing.assert_allclose(
        step.network.bn.moving_mean.asnumpy(), 0.1 * x.mean((0, 2, 3)), rtol=1e-5, atol=1e-7
    )


class ClearsWhenRead(nn.Cell):
    """`all_finite` of an Ascend 910, or in saturation mode: asking for the overflow flag clears it."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.flag = ms.Parameter(ms.Tensor(0, ms.float32), name="device.flag", requires_grad=False)

    def construct(self, gradients):
        finite = ops.depend(self.flag, gradients) * 1.0 == 0
        ops.assign(self.flag, ops.zeros_like(self.flag))
        return finite


class Line(nn.Cell):
    """w x, and a running statistic that counts batches: as few operators as a step can have."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.ones(1, np.float32), name="weight")
        self.mean = ms.Parameter(np.zeros(1, np.float32), name="moving_mean", requires_grad=False)

    def construct(self, x):
        ops.assign_add(self.mean, ops.ones_like(self.mean))
        return x * self.weight


class Product(nn.Cell):
    def construct(self, outputs, targets):
        return (outputs * targets).sum()


def line_step(**settings):
    network = Line()
    return TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        Product(),
        SGD([ParamGroup("all", (network.weight,), 0.0)], momentum=0.0, nesterov=False),
        rates=np.ones(1),
        loss_scale=LossScale("dynamic", value=4.0, window=1),
        **settings,
    ).set_train(True)


@pytest.mark.parametrize("accumulate_steps", [1, 2, 5])
def test_an_overflow_is_seen_by_all_though_asking_clears_it(
    graph_mode, monkeypatch, accumulate_steps, more_if_slow
):
    """Random patterns of batches with an overflow: update, loss scale and statistics."""
    count = more_if_slow(100, 300)
    device = ClearsWhenRead()
    monkeypatch.setattr(ms.amp, "all_finite", device)
    step = line_step(accumulate_steps=accumulate_steps)
    step.on_cpu, network = False, step.network
    one = ms.Tensor(np.ones(1, np.float32))
    one_in_two = 1 - 0.5 ** (1 / accumulate_steps)
    patterns = np.random.default_rng(0).random((count, accumulate_steps)) < one_in_two
    weight, mean, scale = 1.0, 0.0, 4.0
    for pattern in patterns:
        for overflows in pattern:
            device.flag.set_data(ms.Tensor(float(overflows), ms.float32))
            _, used, overflow, _ = step(one, one)
            mean += not overflows
            assert network.mean.asnumpy() == mean
        assert (used.asnumpy(), overflow.asnumpy()) == (scale, pattern.any())
        weight -= not pattern.any()
        assert network.weight.asnumpy() == pytest.approx(weight, rel=1e-6)
        scale = max(scale / 2, 1.0) if pattern.any() else min(scale * 2, 2.0**64)
    assert 0.3 * count < step.applied.asnumpy() == 1 - weight < 0.7 * count
    assert step.updates.asnumpy() == count


class AnotherCard(nn.Cell):
    """Stands for the sum over two cards that are alike, but that the other one has an overflow."""

    def construct(self, x):
        if x.shape[0] == 3:  # loss, flag, statistic
            return 2 * x + ms.Tensor(np.array([0, 1, 0], np.float32))
        return 2 * x


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_an_overflow_of_another_card_holds_for_this_one(graph_mode, monkeypatch, accumulate_steps):
    monkeypatch.setattr("src.parallel.buckets.ops.AllReduce", lambda _: AnotherCard())
    step = line_step(accumulate_steps=accumulate_steps, cards=2)
    one = ms.Tensor(np.ones(1, np.float32))
    for _ in range(accumulate_steps):
        _, _, overflow, norm = step(one, one)
    assert overflow.asnumpy() == 1 and np.isfinite(norm.asnumpy())
    assert step.network.weight.asnumpy() == 1 and step.network.mean.asnumpy() == 0
    assert step.loss_scale.value.asnumpy() == 2


def test_training_goes_on_as_if_the_batch_had_not_been_but_for_the_rate(
    linear_step, linear_oracle, linear_batch, call
):
    step, oracle = linear_step(rates=RATES), linear_oracle(rates=RATES)
    overflows = []
    for number in range(5):
        batch = linear_batch(number)
        if number in (1, 2):
            overflows.append(call(step, spoil(batch, np.nan))[2])
            oracle.updates += 1
        else:
            overflows.append(call(step, batch)[2])
            oracle(*batch)
    assert overflows == [0, 1, 1, 0, 0]
    np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)
    assert (int(step.updates.asnumpy()), int(step.applied.asnumpy())) == (5, 3)


def test_a_skipped_update_does_not_count_for_adam_and_ema(linear_step, linear_oracle, linear_batch, call):
    step = linear_step(
        rates=RATES,
        optimizer=lambda groups: Adam(groups, beta1=0.9, beta2=0.99, eps=1e-8),
        ema=lambda network: EMA(network, decay=0.95, warmup=True),
    )
    oracle = linear_oracle(rates=RATES)
    weight, average = oracle.weights[0].copy(), oracle.weights[0].copy()
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    applied = 0
    for number in range(5):
        batch = linear_batch(number)
        if number in (0, 2):
            assert call(step, spoil(batch, np.inf))[2] == 1
            continue
        bias = step.network.bias.asnumpy().astype(np.float64)
        oracle.weights = [weight, bias]
        gradient = oracle.gradients(*batch)[1][0] + 0.01 * weight
        assert call(step, batch)[2] == 0
        applied += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        mean, square = first / (1 - 0.9**applied), second / (1 - 0.99**applied)
        weight = weight - RATES[number] * mean / (np.sqrt(square) + 1e-8)
        decay = min(0.95, (1 + applied) / (10 + applied))
        average = decay * average + (1 - decay) * weight
    np.testing.assert_allclose(step.network.weight.asnumpy(), weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(step.ema.averages[0].asnumpy(), average, rtol=1e-4, atol=1e-5)
    assert int(step.optimizer.step.asnumpy()) == applied == 3


def test_one_bad_batch_spoils_its_accumulation_and_not_the_next(
    linear_step, linear_oracle, linear_batch, call
):
    step = linear_step(rates=RATES, accumulate_steps=2)
    oracle = linear_oracle(rates=RATES, accumulate_steps=2)
    overflows = []
    for number in range(6):
        batch = linear_batch(number)
        overflows.append(call(step, spoil(batch, np.inf) if number == 2 else batch)[2])
        if number in (2, 3):
            oracle.updates = 2
        else:
            oracle(*batch)
    assert overflows == [0, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)
    assert (int(step.updates.asnumpy()), int(step.applied.asnumpy())) == (3, 2)


def test_too_large_a_dynamic_scale_is_halved_until_the_gradients_are_finite(
    linear_step, linear_oracle, linear_batch, call
):
    """The scaled gradients overflow float32 while the loss itself is finite."""
    x, targets = linear_batch(0)
    batch = (x * 8, targets)
    step = linear_step(rates=RATES, loss_scale=LossScale("dynamic", value=2.0**127, window=3))
    oracle = linear_oracle(rates=RATES)
    rows = [call(step, batch) for _ in range(6)]
    scales, overflows = [row[1] for row in rows], [row[2] for row in rows]
    skipped = int(sum(overflows))
    assert 1 <= skipped <= 3, "the case must overflow, and then not"
    assert overflows == [1] * skipped + [0] * (6 - skipped)
    assert scales == [2.0 ** (127 - min(number, skipped)) for number in range(6)]
    oracle.updates = skipped
    for _ in range(6 - skipped):
        oracle(*batch)
    np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=2e-5)


def test_the_scale_grows_after_a_window_and_the_one_in_use_is_returned(linear_step, linear_batch, call):
    step = linear_step(rates=RATES, loss_scale=LossScale("dynamic", value=4.0, window=2))
    bad = (3,)
    rows = [
        call(step, spoil(linear_batch(number), np.nan) if number in bad else linear_batch(number))
        for number in range(7)
    ]
    assert [row[1] for row in rows] == [4, 4, 8, 8, 4, 4, 8]
    assert [row[2] for row in rows] == [0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("mode", ["fixed", "dynamic"])
def test_a_power_of_two_as_scale_changes_no_bit(linear_step, linear_batch, call, mode):
    plain = linear_step(rates=RATES)
    scaled = linear_step(rates=RATES, loss_scale=LossScale(mode, value=2.0**20, window=2))
    for number in range(4):
        expected, found = call(plain, linear_batch(number)), call(scaled, linear_batch(number))
        assert (found[0], found[2], found[3]) == (expected[0], 0, expected[3])
        assert found[1] == (2.0**20 if mode == "fixed" else 2.0 ** (20 + number // 2))
    np.testing.assert_array_equal(scaled.network.weight.asnumpy(), plain.network.weight.asnumpy())
    np.testing.assert_array_equal(scaled.network.bias.asnumpy(), plain.network.bias.asnumpy())


def test_a_fixed_scale_stays_after_an_overflow(linear_step, linear_batch, call):
    step = linear_step(rates=RATES, loss_scale=LossScale("fixed", value=1024.0, window=1))
    rows = [call(step, batch) for batch in (spoil(linear_batch(0), np.inf), linear_batch(1), linear_batch(2))]
    assert [row[1:3] for row in rows] == [(1024, 1), (1024, 0), (1024, 0)]
