# SPDX-License-Identifier: Apache-2.0
"""What stands still: no bit of it moves, its gradient is not computed, and a cut run goes on to the bit."""

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.layers.losses import CrossEntropy
from src.layers.pixels import Pixels
from src.model_utils.config import check
from src.optim.groups import ParamGroup
from src.optim.muon import Muon
from src.optim.optimizers import SGD
from src.training.ema import EMA
from src.training.keys import StepKeys
from src.training.loss_scale import LossScale
from src.training.precision import set_precision
from src.training.signals import Interrupted
from src.training.train_step import TrainStep
from tests.helpers.cut_runs import CASES, assert_same, last_of, stop_at
from tests.training.test_train_step import SmallConvNet, image_batch

pytestmark = pytest.mark.usefixtures("graph_mode")

RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.25])
OWN = np.array([0.4, 0.2])


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_the_rest_trains_on_as_if_alone(linear_step, linear_oracle, linear_batch, call, accumulate_steps):
    def optimizer(groups):
        weights, biases = groups
        biases = ParamGroup("biases", biases.parameters, 0.0, 2.0, rates=OWN)
        return SGD([weights, biases], momentum=0.9, nesterov=True)

    settings = {"rates": RATES, "accumulate_steps": accumulate_steps}
    step = linear_step(optimizer=optimizer, ema=lambda n: EMA(n, decay=0.5, warmup=False), **settings)
    oracle = linear_oracle(**settings)
    assert step.stretches(5) == [(0, 2), (2, 5)] and step.stretches(2) == [(0, 2)]
    number = 0
    for first, last in step.stretches(5):
        step.freeze(first)
        assert step.still == ((1, 2) if first else (0, 2))
        kept, velocity = oracle.weights[1], oracle.velocity[1]
        exact = step.network.bias.asnumpy().copy()
        for update in range(first, last):
            for _ in range(accumulate_steps):
                x, targets = linear_batch(number)
                norm = call(step, (x, targets))[3]
                oracle.batches += 1
                gradients = oracle.gradients(x, targets)[1]
                oracle.total = [t + g / accumulate_steps for t, g in zip(oracle.total, gradients)]
                number += 1
            live = oracle.total if first == 0 else oracle.total[:1]
            assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in live)), rel=2e-5)
            oracle.rates = RATES
            bias = _own_update(oracle, OWN[min(update, 1)])
            oracle._update(norm)
            oracle.weights[1], oracle.velocity[1] = bias if first == 0 else (kept, velocity)
            np.testing.assert_allclose(step.network.weight.asnumpy(), oracle.weights[0], rtol=2e-5, atol=5e-6)
            np.testing.assert_allclose(step.network.bias.asnumpy(), oracle.weights[1], rtol=2e-5, atol=5e-6)
    np.testing.assert_array_equal(step.network.bias.asnumpy(), exact)
    assert {p.name for p in step.state} >= {"optim.velocity.bias", "ema.bias"}


def _own_update(oracle, rate):
    velocity = 0.9 * oracle.velocity[1] + oracle.total[1]
    return oracle.weights[1] - 2 * rate * (oracle.total[1] + 0.9 * velocity), velocity


def frozen_conv_step(amp_level="O0", **settings):
    """Muon on a small network; convolution and normalisation stand still after 3 updates."""
    network = SmallConvNet(normalise=True)
    first = [p for p in network.trainable_params() if not p.name.startswith("linear")]
    rest = [p for p in network.trainable_params() if p.name.startswith("linear")]
    groups = [
        ParamGroup("first", tuple(first), 0.0, rates=np.array([0.1, 0.1, 0.1])),
        ParamGroup("rest", tuple(rest), 0.0),
    ]
    optimizer = Muon(
        groups, momentum=0.9, nesterov=True, lr_in_velocity=False, lr=0.1, filter_lr=0.1,
        filter_momentum=0.6, filter_decay=0.0, steps=3,
        coefficients=(3.4445, -4.775, 2.0315), norm_every=1, norm_growth=0.0, updates=30,
    )  # fmt: skip
    step = TrainStep(
        set_precision(network, amp_level), Pixels((0, 0, 0), (1, 1, 1)), CrossEntropy(), optimizer,
        rates=np.full(30, 0.1), **{"loss_scale": LossScale("none"), **settings},
    )  # fmt: skip
    return step.set_train(True), network


def test_a_frozen_normalisation_has_the_running_statistics_and_leaves_them(call, state):
    step, network = frozen_conv_step()
    for number in range(3):
        call(step, image_batch(number, count=8))
    before = state(step)
    step.freeze(3)
    step.set_train(False)  # an evaluation
    step.set_train(True)
    assert step.training and step.network.linear.training
    assert not (network.bn.training or network.conv.training)
    images, targets = image_batch(5, count=8)
    network.set_train(False)
    expected = CrossEntropy()(network(ms.Tensor(images)), ms.Tensor(targets)).asnumpy()
    step.set_train(True)
    assert call(step, (images, targets))[0] == pytest.approx(expected, rel=1e-6)
    changed = {name for name, value in state(step).items() if not np.array_equal(value, before[name])}
    assert changed == {
        "linear.weight", "linear.bias", "optim.velocity.linear.weight", "optim.velocity.linear.bias",
        "train.updates", "train.applied",
    }  # fmt: skip


def test_muon_trains_in_mixed_precision(call, state):
    step, _ = frozen_conv_step("O2", loss_scale=LossScale("dynamic", value=2.0**24, window=1000))
    step.optimizer.ends, step.optimizer.own = (), (-1,) * len(step.optimizer.parameters)
    step.freeze(0)
    rows = [call(step, image_batch(number % 4, count=32)) for number in range(30)]
    losses, _, overflows, _ = (np.array(column) for column in zip(*rows))
    assert overflows[0] == 1 and overflows[-10:].sum() == 0
    assert losses[-4:].mean() < 0.5 * losses[:4].mean()
    for name, value in state(step).items():
        assert np.isfinite(value).all() and value.dtype in (np.float32, np.int32), name


def test_stop_between_two_freezings_and_resume_change_no_bit(start, resume, straight, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run_dir, watch=stop_at(7), **CASES["freezing"])
    stopped = last_of(run_dir).arrays
    resume(run_dir)
    assert_same(run_dir, straight("freezing"))
    ended = last_of(run_dir).arrays
    moved = {name for name in ended if not np.array_equal(ended[name], stopped[name])}
    assert moved >= {"linear.weight", "optim.velocity.linear.weight", "optim.velocity.bn.beta"}
    assert "optim.velocity.conv.weight" not in moved


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"freeze_epochs": (3.0, 2.0)}, r"^freeze_epochs: \[3.0, 2.0\] given"),
        ({"freeze_epochs": (0.0,)}, r"^freeze_epochs: \[0.0\] given"),
        ({"ema_every": 5}, "^ema_every: 5 given, allowed: 1 with ema_decay 0"),
        ({"lookahead": True}, "^lookahead: True given, allowed: false with ema_decay 0"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, message):
    with pytest.raises(UserError, match=message):
        check(keys, StepKeys)
