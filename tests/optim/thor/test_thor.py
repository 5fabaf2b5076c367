# SPDX-License-Identifier: Apache-2.0
"""THOR is its formula: against K-FAC in float64, where it is exact, and where there is nothing to invert."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.conv import dense
from src.layers.losses import CrossEntropy
from src.layers.pixels import Pixels
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD
from src.optim.thor.blocks import blocks_of
from src.optim.thor.optimizer import Thor
from src.training.loss_scale import LossScale
from src.training.precision import set_precision
from src.training.train_step import TrainStep
from tests.optim.thor.oracle import Oracle, SmallNet, batch

pytestmark = pytest.mark.usefixtures("graph_mode")

RATES = np.array([0.05, 0.2, 0.1, 0.15, 0.1, 0.05])
DAMPING = 0.02


def thor(network, **settings):
    settings = {"lr": 1.0, "layer_lr": 0.0, "damping": DAMPING, "every": 2, "block": 1000, **settings}
    groups = [ParamGroup("all", tuple(network.trainable_params()), weight_decay=settings.pop("decay", 0.01))]
    return Thor(groups, network=network, momentum=0.9, nesterov=False, lr_in_velocity=False, **settings)


def train_step(network, optimizer, *, amp_level="O0", loss_scale=None, **settings):
    return TrainStep(
        set_precision(network, amp_level),
        Pixels((0, 0, 0), (1, 1, 1)),
        CrossEntropy(),
        optimizer,
        rates=RATES,
        loss_scale=loss_scale or LossScale("none"),
        **settings,
    ).set_train(True)


def run(step, number, **how):
    return [float(value.asnumpy()) for value in step(*map(ms.Tensor, batch(number, **how)))]


def assert_weights(network, oracle, tolerance=1e-4):
    for cell, layer in zip(network.layers, oracle.layers, strict=True):
        scale = np.abs(layer.weight).max()
        np.testing.assert_allclose(cell.weight.asnumpy(), layer.weight, atol=tolerance * scale, rtol=0)
        if layer.has_bias:
            np.testing.assert_allclose(cell.bias.asnumpy(), layer.bias, atol=tolerance * scale, rtol=0)


def assert_inverses(optimizer, oracle):
    for place, found in enumerate(optimizer.factors):
        expected = oracle.inverses[place % len(oracle.layers)][place // len(oracle.layers)]
        np.testing.assert_allclose(found.asnumpy()[0], expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(
    ("first", "settings"),
    [
        (True, {}),
        # Of a convolution's 18 or 36 rows and the bias, 2 channels of 9 stay together; of 4 outputs, 4.
        (False, {"balanced": True, "block": 20}),
        (False, {"accumulate_steps": 2, "loss_scale": LossScale("fixed", value=128.0)}),
        (True, {"clip_norm": 0.1}),
    ],
    ids=["bias first", "balanced, by blocks", "loss scale and accumulation", "clipping"],
)
def test_steps_are_those_of_kfac(first, settings):
    network = SmallNet(first=first)
    settings = dict(settings)
    own = {name: settings.pop(name) for name in ("balanced", "block") if name in settings}
    oracle = Oracle(network, damping=DAMPING, weight_decay=0.01, **own)
    step = train_step(network, thor(network, **own), **settings)
    batches = settings.get("accumulate_steps", 1)
    for update in range(3):
        parts = [run(step, batches * update + part) for part in range(batches)]
        images, targets = (
            np.concatenate(both)
            for both in zip(*(batch(batches * update + part) for part in range(batches)), strict=True)
        )
        loss = oracle.differentiate(images, targets)
        if update % 2 == 0:
            oracle.invert()
        gradients = np.concatenate([layer.gradient().ravel() for layer in oracle.layers])
        assert np.mean([part[0] for part in parts]) == pytest.approx(loss, rel=1e-5)
        norm = np.linalg.norm(gradients)
        assert parts[-1][3] == pytest.approx(norm, rel=1e-4)
        clip = settings.get("clip_norm", norm)
        assert clip <= norm
        oracle.update(RATES[update], scale=clip / norm)
        assert_weights(network, oracle)
        if "block" not in own:
            assert_inverses(step.optimizer, oracle)
    assert int(step.optimizer.made.asnumpy()) == 2
    assert int(step.optimizer.raised.asnumpy()) == 0


@pytest.mark.parametrize(
    ("size", "most", "unit", "expected"),
    [
        (3, 128, 1, (1, 3)),
        (128, 128, 1, (1, 128)),
        (129, 128, 1, (2, 65)),
        (27, 128, 9, (1, 27)),
        (28, 128, 9, (1, 28)),  # 3 channels and a bias
        (28, 30, 9, (1, 28)),
        (127, 128, 9, (1, 127)),  # 14 channels and a bias
        (288, 128, 9, (3, 99)),  # 11, 11 and 10 channels
        (4608, 128, 9, (37, 126)),
        (10, 4, 9, (3, 4)),  # a channel is larger than a block
        (1, 1, 1, (1, 1)),
    ],
)
def test_blocks_are_alike_and_keep_channels_together(size, most, unit, expected):
    assert blocks_of(size, most=most, unit=unit) == expected
    count, side = expected
    assert (count - 1) * side < size <= count * side and side <= max(most, 1)


def test_with_the_identity_for_damped_factors_it_is_sgd():
    twins = [SmallNet(first=True) for _ in range(2)]
    groups = [
        [
            ParamGroup("biases", tuple(p for p in net.trainable_params() if "bias" in p.name), 0.0, 2.0),
            ParamGroup("rest", tuple(p for p in net.trainable_params() if "bias" not in p.name), 0.1),
        ]
        for net in twins
    ]
    how = {"momentum": 0.9, "nesterov": True, "lr_in_velocity": False}
    sgd = SGD(groups[0], **how)
    natural = Thor(groups[1], network=twins[1], lr=1.0, layer_lr=0.0, damping=0.25, every=1, block=8, **how)
    halves = tuple(ms.Tensor(0.5 * factor.asnumpy()) for factor in natural.factors)  # and the damping's root
    rng = np.random.default_rng(0)
    for _ in range(3):
        gradients = tuple(ms.Tensor(rng.normal(size=p.shape).astype(np.float32)) for p in sgd.parameters)
        for optimizer, factors in ((sgd, ()), (natural, halves)):
            optimizer(gradients + factors, ms.Tensor(0.1, ms.float32), ms.Tensor(0, ms.int32))
    assert int(natural.made.asnumpy()) == 0
    for one, other in zip(sgd.parameters, natural.parameters, strict=True):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), atol=1e-6, rtol=0)


class _Linear(nn.Cell):
    """Two dense layers, nothing between: (N, 3) -> (N, 2)."""

    def __init__(self):
        super().__init__()
        self.one = dense(in_channels=3, out_channels=4, bias=True)
        self.two = dense(in_channels=4, out_channels=2, bias=False)
        rng = np.random.default_rng(1)
        for parameter in self.get_parameters():
            parameter.set_data(ms.Tensor(rng.normal(size=parameter.shape).astype(np.float32)))

    def construct(self, x):
        return self.two(self.one(x))


def test_layers_have_the_rate_of_layers_and_all_others_lr():
    network = _Linear()
    network.scale = ms.Parameter(ms.Tensor([1.0], ms.float32), name="scale")
    groups = [
        ParamGroup("all", (network.scale, network.one.weight, network.one.bias), 0.0),
        ParamGroup("head", (network.two.weight,), 0.0, 3.0),
    ]
    how = {"momentum": 0.0, "nesterov": False, "lr_in_velocity": False, "damping": 1.0, "every": 1}
    natural = Thor(groups, network=network, block=8, lr=0.5, layer_lr=0.05, **how)
    before = [parameter.asnumpy().copy() for parameter in natural.parameters]
    ones = tuple(ops.ones_like(parameter) for parameter in natural.parameters)
    natural(ones, ms.Tensor(0.25, ms.float32), ms.Tensor(0, ms.int32))
    moved = [old - new.asnumpy() for old, new in zip(before, natural.parameters, strict=True)]
    for move, rate in zip(moved, (0.25, 0.025, 0.025, 0.075), strict=True):
        np.testing.assert_allclose(move, rate, atol=1e-6)


def test_factors_are_the_whole_fisher_block_of_a_linear_network():
    """Of the first layer: its input is independent of what comes back, as each meets each."""
    network = _Linear()
    optimizer = thor(network)
    optimizer.capture(True)
    rng = np.random.default_rng(2)
    inputs, noise = rng.normal(size=(5, 3)), np.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    x, dy = np.repeat(inputs, len(noise), axis=0), np.tile(noise, (len(inputs), 1))

    def loss(x, dy):
        return (network(x) * dy).sum(axis=1).mean()

    factors = ms.grad(loss, None, weights=optimizer.factors)(
        ms.Tensor(x.astype(np.float32)), ms.Tensor(dy.astype(np.float32))
    )
    a, g = factors[0].asnumpy()[0], factors[2].asnumpy()[0]
    back = dy @ network.two.weight.asnumpy().astype(np.float64)
    ones = np.concatenate([x, np.ones((len(x), 1))], 1)
    each = np.einsum("no,ni->noi", back, ones).reshape(len(x), -1)  # an image's gradient
    np.testing.assert_allclose(np.kron(g, a), each.T @ each / len(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["O2", "auto"])
def test_mixed_precision_has_the_inverses_of_float32(level):
    found = []
    for amp_level in ("O0", level):
        network = SmallNet(first=True)
        step = train_step(
            network, thor(network), amp_level=amp_level, loss_scale=LossScale("fixed", value=128.0)
        )
        run(step, 0)
        assert int(step.optimizer.made.asnumpy()) == 0
        found.append([factor.asnumpy() for factor in step.optimizer.factors])
    for exact, rounded in zip(*found, strict=True):
        np.testing.assert_allclose(rounded, exact, atol=2e-3 * np.abs(exact).max(), rtol=0)


@pytest.mark.parametrize("balanced", [False, True])
def test_degenerate_batches_in_float16_leave_the_weights_finite(balanced):
    network = SmallNet(first=True)
    step = train_step(
        network,
        thor(network, every=1, damping=1e-8, balanced=balanced),
        amp_level="O2",
        loss_scale=LossScale("fixed", value=128.0),
    )
    images, targets = batch(0, count=1)
    flat = np.full_like(targets, 1 / 3)
    cases = [(images, targets), (np.zeros_like(images), targets), (np.ones_like(images), targets)]
    for cell in network.layers[-1:]:
        cell.weight.set_data(ops.zeros_like(cell.weight))
        cell.bias.set_data(ops.zeros_like(cell.bias))
    cases.insert(0, (images, flat))  # no gradient at all
    for images, targets in cases:
        outputs = [float(v.asnumpy()) for v in step(ms.Tensor(images), ms.Tensor(targets))]
        assert np.isfinite(outputs).all() and outputs[2] == 0
        for parameter in step.state:
            assert np.isfinite(parameter.asnumpy()).all(), parameter.name
    assert int(step.optimizer.raised.asnumpy()) > 0
    assert int(step.optimizer.made.asnumpy()) == 3


def test_an_overflow_makes_no_inverses_and_the_next_update_does():
    network = SmallNet(first=True)
    step = train_step(network, thor(network, every=4))
    before = [p.asnumpy().copy() for p in step.optimizer.get_parameters()]
    images, targets = batch(0)
    _, _, overflow, _ = step(ms.Tensor(images), ms.Tensor(np.full_like(targets, np.nan)))
    assert overflow.asnumpy() == 1
    for parameter, value in zip(step.optimizer.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.asnumpy(), value, err_msg=parameter.name)
    made = []
    for number in range(1, 6):
        run(step, number)
        made.append(int(step.optimizer.made.asnumpy()))
    assert made == [1, 1, 1, 1, 5]
    assert len(step.compile_cache) == 2, "one graph with factors and one without"
