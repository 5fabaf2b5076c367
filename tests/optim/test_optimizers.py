# SPDX-License-Identifier: Apache-2.0
"""The optimizers against their formulas in float64, inside the graph that a train step compiles."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.optim.groups import ParamGroup, ParamRule, group_parameters
from src.optim.optimizers import SGD, Adam, AdamW, RMSProp

SHAPES = {"conv.weight": (37, 30, 3, 3), "conv.bias": (3,), "head.weight": (4, 3), "scale": ()}
RULES = [ParamRule("no decay", "bias|scale", 0.0, 8.0), ParamRule("decay", "weight", 0.05)]
ORDER = ["conv.bias", "scale", "conv.weight", "head.weight"]
RATES = [0.01, 0.05, 0.002, 0.03, 0.0, 0.02]


@pytest.fixture(autouse=True)
def graph_mode():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


class Sgd64:
    def __init__(self, momentum, nesterov, lr_in_velocity=False):
        self.momentum, self.nesterov, self.lr_in_velocity = momentum, nesterov, lr_in_velocity

    def start(self, w):
        return {"velocity": np.zeros_like(w)}

    def update(self, w, state, g, lr, wd):
        g = g + wd * w
        if self.lr_in_velocity:
            g, lr = lr * g, 1
        state["velocity"] = v = self.momentum * state["velocity"] + g
        return w - lr * (g + self.momentum * v if self.nesterov else v)


class RmsProp64:
    def __init__(self, decay, momentum, eps):
        self.decay, self.momentum, self.eps = float(np.float32(decay)), momentum, eps

    def start(self, w):
        return {"mean_square": np.ones_like(w), "moment": np.zeros_like(w)}

    def update(self, w, state, g, lr, wd):
        g = g + wd * w
        state["mean_square"] = s = self.decay * state["mean_square"] + (1 - self.decay) * g**2
        state["moment"] = m = self.momentum * state["moment"] + lr * g / np.sqrt(s + self.eps)
        return w - m


class Adam64:
    def __init__(self, beta1, beta2, eps, decoupled):
        self.beta1, self.beta2 = float(np.float32(beta1)), float(np.float32(beta2))
        self.eps, self.decoupled = eps, decoupled

    def start(self, w):
        self.step = 0
        return {"moment1": np.zeros_like(w), "moment2": np.zeros_like(w), "t": 0}

    def update(self, w, state, g, lr, wd):
        if self.decoupled:
            w = w - lr * wd * w
        else:
            g = g + wd * w
        state["t"] = t = state["t"] + 1
        state["moment1"] = m = self.beta1 * state["moment1"] + (1 - self.beta1) * g
        state["moment2"] = v = self.beta2 * state["moment2"] + (1 - self.beta2) * g**2
        return w - lr * (m / (1 - self.beta1**t)) / (np.sqrt(v / (1 - self.beta2**t)) + self.eps)


CASES = {
    "sgd": (lambda g: SGD(g, momentum=0.9, nesterov=False), Sgd64(0.9, False)),
    "nesterov": (lambda g: SGD(g, momentum=0.9, nesterov=True), Sgd64(0.9, True)),
    "plain sgd": (lambda g: SGD(g, momentum=0.0, nesterov=False), Sgd64(0.0, False)),
    "sgd, rate in velocity": (
        lambda g: SGD(g, momentum=0.9, nesterov=False, lr_in_velocity=True),
        Sgd64(0.9, False, True),
    ),
    "nesterov, rate in velocity": (
        lambda g: SGD(g, momentum=0.9, nesterov=True, lr_in_velocity=True),
        Sgd64(0.9, True, True),
    ),
    "adam": (lambda g: Adam(g, beta1=0.9, beta2=0.999, eps=1e-8), Adam64(0.9, 0.999, 1e-8, False)),
    "adam, large eps": (lambda g: Adam(g, beta1=0.8, beta2=0.99, eps=0.5), Adam64(0.8, 0.99, 0.5, False)),
    "adam, no memory": (lambda g: Adam(g, beta1=0.0, beta2=0.0, eps=0.1), Adam64(0.0, 0.0, 0.1, False)),
    "adamw": (lambda g: AdamW(g, beta1=0.9, beta2=0.999, eps=1e-8), Adam64(0.9, 0.999, 1e-8, True)),
    "rmsprop": (lambda g: RMSProp(g, decay=0.9, momentum=0.9, eps=1.0), RmsProp64(0.9, 0.9, 1.0)),
    "rmsprop, small eps": (
        lambda g: RMSProp(g, decay=0.99, momentum=0.0, eps=1e-3),
        RmsProp64(0.99, 0.0, 1e-3),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)
every_kind = pytest.mark.parametrize("case", ["nesterov", "adam", "adamw", "rmsprop"])


def draw(seed):
    """One array per parameter, magnitudes from 0.5 to 2 so that no error hides behind a small value."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


class Bowl(nn.Cell):
    """A loss whose gradient is known: x * sum(slope * w + w ** 2 / 2) has the gradient x * (slope + w)."""

    def __init__(self):
        super().__init__()
        self.weights = ms.ParameterTuple(
            [ms.Parameter(ms.Tensor(w), name=name) for name, w in draw(1).items()]
        )
        self.slopes = tuple(ms.Tensor(4 * slope) for slope in draw(2).values())

    def construct(self, x):
        loss = x * 0.0
        for i, weight in enumerate(self.weights):
            loss = loss + x * (self.slopes[i] * weight + weight * weight / 2).sum()
        return loss


class TrainStep(nn.Cell):
    """What a train step does with an optimizer: gradients in its order, an update only if they are finite."""

    def __init__(self, network, optimizer):
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.grad_fn = ms.value_and_grad(network, None, optimizer.parameters)

    def construct(self, x, learning_rate):
        loss, gradients = self.grad_fn(x)
        finite = ms.amp.all_finite(gradients)
        if finite:
            self.optimizer(gradients, learning_rate)
        return loss, finite


class Oracle:
    """The same run in float64 on one array after the other."""

    def __init__(self, formula):
        self.formula = formula
        self.weights = {name: w.astype(np.float64) for name, w in draw(1).items()}
        self.slopes = {name: 4 * slope.astype(np.float64) for name, slope in draw(2).items()}
        self.states = {name: formula.start(w) for name, w in self.weights.items()}

    def step(self, gradients, rate):
        for name, gradient in gradients.items():
            decay, multiplier = (0.05, 1.0) if name.endswith("weight") else (0.0, 8.0)
            self.weights[name] = self.formula.update(
                self.weights[name],
                self.states[name],
                gradient,
                np.float64(np.float32(rate)) * multiplier,
                decay,
            )

    def gradients(self, x):
        return {name: x * (self.slopes[name] + w) for name, w in self.weights.items()}


def scalar(value):
    return ms.Tensor(value, ms.float32)


def values(cell):
    return {parameter.name: parameter.asnumpy().copy() for parameter in cell.get_parameters()}


def build(case):
    create, formula = CASES[case]
    network = Bowl()
    return network, create(group_parameters(network.trainable_params(), RULES)), Oracle(formula)


def assert_follows(optimizer, oracle):
    """Weights and state agree to 1e-6 of the largest value in each tensor."""
    actual = values(optimizer)
    for name, weight in oracle.weights.items():
        expected = {name: weight}
        for slot, state in oracle.states[name].items():
            if slot == "t":
                assert actual["optim.step"] == state
            else:
                expected[f"optim.{slot}.{name}"] = state
        for key, value in expected.items():
            np.testing.assert_allclose(
                actual[key], value, rtol=0, atol=1e-6 * np.abs(value).max(), err_msg=key
            )


@every_case
def test_a_train_step_in_graph_mode_follows_the_formula(case):
    network, optimizer, oracle = build(case)
    train_step = TrainStep(network, optimizer)
    for i, rate in enumerate(RATES):
        x = 0.5 + 0.25 * i
        _, finite = train_step(scalar(x), scalar(rate))
        assert finite
        oracle.step(oracle.gradients(x), rate)
        assert_follows(optimizer, oracle)


@every_kind
def test_a_skipped_update_changes_nothing(case):
    network, optimizer, oracle = build(case)
    train_step = TrainStep(network, optimizer)
    for x, rate in [(1.0, 0.01), (np.inf, 0.02), (np.nan, 0.02), (0.5, 0.03)]:
        before = values(train_step)
        _, finite = train_step(scalar(x), scalar(rate))
        after = values(train_step)
        assert bool(finite) == np.isfinite(x)
        if finite:
            oracle.step(oracle.gradients(x), rate)
            assert any(before[name].tobytes() != after[name].tobytes() for name in before)
        else:
            assert {name: a.tobytes() for name, a in before.items()} == {
                name: a.tobytes() for name, a in after.items()
            }
    assert_follows(optimizer, oracle)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
@every_case
def test_given_gradients_are_applied_elementwise(case, mode):
    ms.set_context(mode=mode)
    _, optimizer, oracle = build(case)
    for seed, rate in enumerate(RATES):
        gradients = draw(100 + seed)
        optimizer(ms.mutable(tuple(ms.Tensor(gradients[name]) for name in ORDER)), scalar(rate))
        oracle.step({name: g.astype(np.float64) for name, g in gradients.items()}, rate)
    assert_follows(optimizer, oracle)


@every_kind
def test_state_is_saved_and_restored_by_name(case, tmp_path):
    network, optimizer, _ = build(case)
    train_step = TrainStep(network, optimizer)
    for rate in RATES[:3]:
        train_step(scalar(0.75), scalar(rate))
    path = str(tmp_path / "run.ckpt")
    ms.save_checkpoint(train_step, path)
    for rate in RATES[3:]:
        train_step(scalar(0.75), scalar(rate))

    other_network, other_optimizer, _ = build(case)
    resumed = TrainStep(other_network, other_optimizer)
    not_loaded, _ = ms.load_param_into_net(resumed, ms.load_checkpoint(path), strict_load=True)
    assert not not_loaded
    for rate in RATES[3:]:
        resumed(scalar(0.75), scalar(rate))
    expected, actual = values(train_step), values(resumed)
    assert list(expected) == list(actual)
    for name, value in expected.items():
        assert value.tobytes() == actual[name].tobytes(), name


def single(value, **group):
    parameter = ms.Parameter(ms.Tensor(np.float32(value)), name="w")
    return parameter, [ParamGroup("all", (parameter,), **({"weight_decay": 0.0} | group))]


def test_stages_of_one_rule_have_rates_of_their_own():
    parameters = [ms.Parameter(ms.Tensor(np.zeros(4, np.float32)), name=name) for name in "abc"]
    rates = (np.ones(2), np.ones(3), None)
    groups = [
        ParamGroup("weights", (p,), weight_decay=0.0, rates=own)
        for p, own in zip(parameters, rates, strict=True)
    ]
    optimizer = SGD(groups, momentum=0.9, nesterov=True)
    assert optimizer.own == (0, 1, -1) and optimizer.ends == (2, 3)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("gradient", [3.0, -1e-3])
def test_the_first_adam_update_is_exactly_one_rate_long(kind, gradient):
    parameter, groups = single(0.0)
    kind(groups, beta1=0.9, beta2=0.999, eps=1e-12)((scalar(gradient),), scalar(0.25))
    np.testing.assert_allclose(parameter.asnumpy(), -0.25 * np.sign(gradient), rtol=1e-6)


def test_bias_correction_is_exact_and_fades_with_the_count():
    parameter, groups = single(0.0)
    optimizer = Adam(groups, beta1=0.9, beta2=0.999, eps=1e-12)
    for count in (1, 2, 10, 1000, 1_000_000):
        optimizer.step.set_data(ms.Tensor(count - 1, ms.int32))
        optimizer.moment1[0].set_data(scalar(0.0))
        optimizer.moment2[0].set_data(scalar(0.0))
        parameter.set_data(scalar(0.0))
        optimizer(ms.mutable((scalar(1.0),)), scalar(1.0))
        beta1, beta2 = np.float64(np.float32(0.9)), np.float64(np.float32(0.999))
        expected = -(1 - beta1) / (1 - beta1**count) / np.sqrt((1 - beta2) / (1 - beta2**count))
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=1e-6)
        assert optimizer.step.asnumpy() == count


def test_by_hand():
    parameter, groups = single(2.0, weight_decay=0.5, lr_multiplier=2.0)
    sgd = SGD(groups, momentum=0.5, nesterov=True)
    sgd((scalar(1.0),), scalar(0.25))  # g = 1 + 0.5 * 2 = 2, v = 2, w = 2 - 0.5 * (2 + 0.5 * 2)
    assert parameter.asnumpy() == 0.5
    sgd((scalar(0.75),), scalar(0.5))  # g = 0.75 + 0.25 = 1, v = 1 + 1 = 2, w = 0.5 - 1 * (1 + 1)
    assert parameter.asnumpy() == -1.5

    parameter, groups = single(2.0)
    sgd = SGD(groups, momentum=0.5, nesterov=True, lr_in_velocity=True)
    sgd((scalar(1.0),), scalar(0.5))  # v = 0.5 * 1, w = 2 - (0.5 + 0.5 * 0.5)
    assert parameter.asnumpy() == 1.25
    sgd((scalar(1.0),), scalar(0.25))  # v = 0.5 * 0.5 + 0.25 * 1 = 0.5, w = 1.25 - (0.25 + 0.5 * 0.5)
    assert parameter.asnumpy() == 0.75

    parameter, groups = single(1.0)
    RMSProp(groups, decay=0.5, momentum=0.5, eps=1.5)((scalar(2.0),), scalar(0.25))
    assert parameter.asnumpy() == 0.75  # s = 0.5 + 0.5 * 4 = 2.5, m = 0.25 * 2 / sqrt(4)

    parameter, groups = single(2.0, weight_decay=0.5, lr_multiplier=2.0)
    AdamW(groups, beta1=0.9, beta2=0.999, eps=1e-8)((scalar(0.0),), scalar(0.25))
    assert parameter.asnumpy() == 1.5  # no gradient: the decay alone, 2 - 2 * 0.25 * 0.5 * 2


def test_a_rate_multiplier_of_zero_holds_the_group_still():
    parameter, groups = single(2.0, weight_decay=0.5, lr_multiplier=0.0)
    SGD(groups, momentum=0.9, nesterov=True)((scalar(1.0),), scalar(0.25))
    assert parameter.asnumpy() == 2.0


def test_a_missing_gradient_is_refused():
    _, optimizer, _ = build("sgd")
    with pytest.raises(ValueError, match="4 gradients are needed, got 1"):
        optimizer((scalar(1.0),), scalar(0.1))
