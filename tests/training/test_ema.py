# SPDX-License-Identifier: Apache-2.0
"""The moving average follows its formula over weights and running statistics, and swaps without a trace."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.conv import conv2d
from src.layers.norm import batch_norm2d
from src.training.ema import EMA


class Normalised(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = conv2d(in_channels=2, out_channels=3, kernel_size=1)
        self.bn = batch_norm2d(channels=3)

    def construct(self, x):
        return self.bn(self.conv(x))


def fill(network, number):
    """New values for all parameters, drawn from `number`, as copies by name."""
    rng = np.random.default_rng([2, number])
    values = {}
    for parameter in network.get_parameters():
        values[parameter.name] = rng.normal(size=parameter.shape).astype(np.float32)
        ops.assign(parameter, ms.Tensor(values[parameter.name]))
    return values


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("warmup", [False, True])
def test_formula(graph_mode, decay, warmup):
    network = Normalised()
    expected = {name: value.astype(np.float64) for name, value in fill(network, 0).items()}
    ema = EMA(network, decay=decay, warmup=warmup)
    assert {name.removeprefix("bn.") for name in expected} >= {"moving_mean", "moving_variance", "gamma"}
    for update in range(1, 8):
        weights = fill(network, update)
        ema(ms.Tensor(update, ms.float32))
        d = min(decay, (1 + update) / (10 + update)) if warmup else decay
        expected = {name: d * value + (1 - d) * weights[name] for name, value in expected.items()}
    found = {p.name: p.asnumpy() for p in ema.averages}
    assert found.keys() == {f"ema.{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"ema.{name}"], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(ema.weights[list(expected).index(name)].asnumpy(), weights[name])


def test_at_an_interval_it_follows_in_the_first_update_and_every_so_many(graph_mode):
    """`update_ema` of cifar10-fast: rho = 0.99 ** 5, in updates 1, 6, 11, ..."""
    network = Normalised()
    expected = {name: value.astype(np.float64) for name, value in fill(network, 0).items()}
    ema = EMA(network, decay=0.99, warmup=False, every=5)
    for count in range(13):  # counted from 0, as there
        weights = fill(network, count + 1)
        ema(ms.Tensor(count + 1, ms.float32))
        if count % 5 == 0:
            rho = 0.99**5
            expected = {name: rho * value + (1 - rho) * weights[name] for name, value in expected.items()}
        for average in ema.averages:
            value = expected[average.name.removeprefix("ema.")]
            np.testing.assert_allclose(average.asnumpy(), value, rtol=1e-5, atol=1e-6)
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), weights[parameter.name])


def test_lookahead_gives_the_weights_the_average(graph_mode):
    """`LookaheadState` of airbench94.py over 13 updates, its last step (decay 1) included."""
    updates, network = 13, Normalised()
    fast = {name: value.astype(np.float64) for name, value in fill(network, 0).items()}
    slow = dict(fast)
    ema = EMA(network, decay=0.95, warmup=True, every=5, lookahead=True)
    for count in range(1, updates + 1):
        for parameter in network.get_parameters():  # an update of the optimizer
            move = np.random.default_rng([4, count]).normal(size=parameter.shape).astype(np.float32)
            ops.assign(parameter, ms.Tensor(parameter.asnumpy() + move))
            fast[parameter.name] = fast[parameter.name] + move
        ema(ms.Tensor(count, ms.float32), ms.Tensor(count / updates, ms.float32))
        if count % 5 == 0:
            decay = 0.95**5 * (count / updates) ** 3
            slow = {name: slow[name] + (1 - decay) * (fast[name] - slow[name]) for name in slow}
            fast = dict(slow)
        for parameter, average in zip(network.get_parameters(), ema.averages, strict=True):
            np.testing.assert_allclose(parameter.asnumpy(), fast[parameter.name], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(average.asnumpy(), slow[parameter.name], rtol=1e-5, atol=1e-5)
    with ema.applied():  # there: net = slow at the end of the run
        for parameter in network.get_parameters():
            np.testing.assert_allclose(parameter.asnumpy(), slow[parameter.name], rtol=1e-5, atol=1e-5)


def test_warm_up_ends_where_its_decay_passes_the_given_one(graph_mode):
    """(1 + t) / (10 + t) is above 0.5 from t = 9 on."""
    network = Normalised()
    ema = EMA(network, decay=0.5, warmup=True)
    gamma = next(p for p in ema.averages if p.name == "ema.bn.gamma")
    for update, decay in [(8, 9 / 18), (9, 0.5), (1000, 0.5), (1, 2 / 11)]:
        gamma.set_data(ms.Tensor(np.zeros(3, np.float32)))
        network.bn.gamma.set_data(ms.Tensor(np.ones(3, np.float32)))
        ema(ms.Tensor(update, ms.float32))
        np.testing.assert_allclose(gamma.asnumpy(), 1 - decay, rtol=1e-6)


def test_it_starts_as_a_copy_of_the_weights(graph_mode):
    network = Normalised()
    start = fill(network, 1)
    ema = EMA(network, decay=0.9, warmup=False)
    fill(network, 2)
    for parameter in ema.averages:
        np.testing.assert_array_equal(parameter.asnumpy(), start[parameter.name.removeprefix("ema.")])
        assert not parameter.requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_applied_swaps_and_restores_every_bit(graph_mode, fails):
    network = Normalised().set_train(False)
    x = ms.Tensor(np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32))
    averaged = fill(network, 1)
    averaged["bn.moving_variance"] = np.abs(averaged["bn.moving_variance"]) + 1
    network.bn.moving_variance.set_data(ms.Tensor(averaged["bn.moving_variance"]))
    with_average = network(x).asnumpy()
    ema = EMA(network, decay=0.9, warmup=False)
    current = fill(network, 2)
    current["conv.weight"][0, 0] = np.nan
    network.conv.weight.set_data(ms.Tensor(current["conv.weight"]))

    def use():
        with ema.applied():
            for parameter in network.get_parameters():
                np.testing.assert_array_equal(parameter.asnumpy(), averaged[parameter.name])
            np.testing.assert_array_equal(network(x).asnumpy(), with_average)
            if fails:
                raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), current[parameter.name])
    for parameter in ema.averages:
        np.testing.assert_array_equal(parameter.asnumpy(), averaged[parameter.name.removeprefix("ema.")])


def test_what_happens_to_the_weights_within_leaves_the_average_alone(graph_mode):
    network = Normalised()
    start = fill(network, 1)
    ema = EMA(network, decay=0.9, warmup=False)
    with ema.applied():
        fill(network, 2)
    for parameter in (*ema.averages, *network.get_parameters()):
        np.testing.assert_array_equal(parameter.asnumpy(), start[parameter.name.removeprefix("ema.")])
