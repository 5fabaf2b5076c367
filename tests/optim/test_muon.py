# SPDX-License-Identifier: Apache-2.0
"""Muon against its formula in float64: the iteration on singular values, and several updates in a graph."""

import mindspore as ms
import numpy as np
import pytest

from src.optim.groups import ParamGroup
from src.optim.muon import Muon, norm_due
from tests.optim.test_optimizers import TrainStep

AIRBENCH = {
    "filter_lr": 0.24, "filter_momentum": 0.6, "filter_decay": 0.0, "steps": 3,
    "coefficients": (3.4445, -4.775, 2.0315), "norm_every": 1, "norm_growth": 0.0, "updates": 9,
}  # fmt: skip
HIVERGE = {
    **AIRBENCH, "filter_lr": 0.205, "filter_momentum": 0.655, "filter_decay": 0.3,
    "coefficients": (3.4576, -4.7391, 2.0843), "norm_every": 2, "norm_growth": 3.0,
}  # fmt: skip
SHAPES = {
    "wide.weight": (6, 4, 3, 3), "tall.weight": (20, 3, 2, 2), "still.weight": (5, 4, 1, 1),
    "head.weight": (3, 6), "norm.bias": (7,),
}  # fmt: skip
RATES = 2 * (1 - np.arange(9) / 9)


def created(weights, *, nesterov=True, settings=AIRBENCH):
    groups = [
        ParamGroup("weights", tuple(p for p in weights if p.name.endswith("weight")), 0.02),
        ParamGroup("biases", tuple(p for p in weights if p.name.endswith("bias")), 0.01, 8.0),
    ]
    groups = [group for group in groups if group.parameters]
    return Muon(groups, momentum=0.85, nesterov=nesterov, lr_in_velocity=False, lr=2.0, **settings)


def quintic(s, coefficients, steps):
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def orthogonal(matrix, coefficients, steps):
    """By the singular value decomposition, which the iteration does not know."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ np.diag(quintic(s / np.linalg.norm(matrix), coefficients, steps)) @ v


class Oracle:
    def __init__(self, weights, settings, nesterov):
        self.weights = {name: w.astype(np.float64) for name, w in weights.items()}
        self.velocity = {name: np.zeros_like(w) for name, w in self.weights.items()}
        self.settings, self.nesterov = settings, nesterov
        self.count = self.last = 0

    def update(self, gradients, rate):
        self.count += 1
        s = self.settings
        interval = s["norm_every"] + np.floor(s["norm_growth"] * self.count / s["updates"])
        due = s["norm_every"] > 0 and self.count - self.last >= interval
        self.last = self.count if due else self.last
        for name, gradient in gradients.items():
            w = self.weights[name]
            is_filter = w.ndim == 4
            mu = s["filter_momentum"] if is_filter else 0.85
            if not is_filter:
                gradient = gradient + (0.02 if name.endswith("weight") else 0.01) * w
            self.velocity[name] = v = mu * self.velocity[name] + gradient
            step = gradient + mu * v if self.nesterov else v
            if is_filter:
                r = rate * s["filter_lr"] / 2
                if np.any(step):
                    step = orthogonal(step.reshape(len(w), -1), s["coefficients"], s["steps"])
                if due:
                    w = w * np.sqrt(len(w)) / np.linalg.norm(w)
                w = (w - r * step.reshape(w.shape)) * (1 - r * s["filter_decay"])
            else:
                w = w - rate * (8 if name.endswith("bias") else 1) * step
            self.weights[name] = w


class Slopes(ms.nn.Cell):
    """A loss with the gradient x * slope, of some weights 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights = ms.ParameterTuple(weights)
        self.slopes = tuple(
            ms.Tensor(np.zeros(p.shape, np.float32) if p.name.startswith("still") else drawn(i + 50, p.shape))
            for i, p in enumerate(weights)
        )

    def construct(self, x):
        loss = x * 0.0
        for i, weight in enumerate(self.weights):
            loss = loss + x * (self.slopes[i] * weight + 0.25 * weight * weight * self.slopes[i]).sum()
        return loss

    def gradients(self, x, weights):
        slopes = [slope.asnumpy().astype(np.float64) for slope in self.slopes]
        names = [p.name for p in self.weights]
        return {name: x * s * (1 + weights[name] / 2) for name, s in zip(names, slopes, strict=True)}


class Updates(TrainStep):
    def construct(self, x, learning_rate, update):
        _, gradients = self.grad_fn(x)
        self.optimizer(gradients, learning_rate, update)
        return gradients


def drawn(seed, shape):
    return np.random.default_rng([8, seed]).normal(size=shape).astype(np.float32)


@pytest.fixture
def graph_mode():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (12, 12), (1, 9)])
@pytest.mark.parametrize("settings", [AIRBENCH, HIVERGE, {**AIRBENCH, "steps": 5}])
def test_the_iteration_keeps_singular_vectors_and_maps_singular_values(shape, settings):
    optimizer = created([ms.Parameter(np.ones((1, 1, 1, 1), np.float32), name="a.weight")], settings=settings)
    matrix = 1e-3 * drawn(3, shape)
    found = optimizer.orthogonal(ms.Tensor(matrix)).asnumpy()
    expected = orthogonal(matrix.astype(np.float64), settings["coefficients"], settings["steps"])
    # Each step makes the errors of small singular values about four times larger.
    np.testing.assert_allclose(found, expected, atol=2e-6 if settings["steps"] == 3 else 1e-4)


def test_an_update_is_orthogonal_within_what_the_iteration_promises():
    """The quintic of s between 0.1 and 1 lies between 0.68 and 1.13 after three steps, and after five."""
    u, _, v = np.linalg.svd(drawn(4, (6, 36)).astype(np.float64), full_matrices=False)
    s = np.array([0.9, 0.3, 0.2, 0.2, 0.1, 0.1])
    s = s / np.linalg.norm(s)
    optimizer = created([ms.Parameter(np.ones((1, 1, 1, 1), np.float32), name="a.weight")])
    found = optimizer.orthogonal(ms.Tensor((u * s @ v).astype(np.float32))).asnumpy().astype(np.float64)
    reached = quintic(np.linspace(0.1, 1, 10_000), AIRBENCH["coefficients"], 3)
    assert (round(reached.min(), 2), round(reached.max(), 2)) == (0.68, 1.13)
    within = np.abs(quintic(np.linspace(0.08, 1, 10_000), AIRBENCH["coefficients"], 3) - 1).max()
    assert within < 0.35
    assert np.abs(np.linalg.svd(found, compute_uv=False) - 1).max() <= within + 1e-5
    np.testing.assert_allclose(u.T @ found @ v.T, np.diag(np.diag(u.T @ found @ v.T)), atol=1e-2)


@pytest.mark.parametrize(
    ("settings", "nesterov"),
    [(AIRBENCH, True), (HIVERGE, True), ({**HIVERGE, "norm_every": 0}, False)],
    ids=["airbench", "hiverge", "no norm, no nesterov"],
)
def test_several_updates_match_float64(graph_mode, settings, nesterov):
    start = {name: drawn(i, shape) for i, (name, shape) in enumerate(SHAPES.items())}
    weights = [ms.Parameter(ms.Tensor(w), name=name) for name, w in start.items()]
    network = Slopes(weights)
    optimizer = created(weights, nesterov=nesterov, settings=settings)
    step, oracle = Updates(network, optimizer), Oracle(start, settings, nesterov)
    factors = [1e-2, -3e-2, 2e-2, 1e-2, -1e-2, 2e-2, 3e-2]
    for number, x in enumerate(factors):
        step(
            ms.Tensor(x, ms.float32), ms.Tensor(RATES[number] / 100, ms.float32), ms.Tensor(number, ms.int32)
        )
        oracle.update(network.gradients(x, oracle.weights), RATES[number] / 100)
        for parameter in weights:
            np.testing.assert_allclose(
                parameter.asnumpy(), oracle.weights[parameter.name], rtol=1e-5, atol=2e-6,
                err_msg=f"{parameter.name} after {number + 1}",
            )  # fmt: skip
    for parameter in optimizer.velocity:
        name = parameter.name.removeprefix("optim.velocity.")
        np.testing.assert_allclose(parameter.asnumpy(), oracle.velocity[name], rtol=1e-5, atol=1e-6)
    if settings is AIRBENCH:
        assert np.linalg.norm(oracle.weights["still.weight"]) == pytest.approx(np.sqrt(5))


def test_a_classifier_that_is_a_convolution_is_no_filter():
    filters, head = (ms.Parameter(np.ones((2, 3, 1, 1), np.float32), name=name) for name in ("a", "head"))
    groups = [ParamGroup("weights", (filters,), 0.0), ParamGroup("classifier", (head,), 0.0, is_head=True)]
    optimizer = Muon(groups, momentum=0.9, nesterov=True, lr_in_velocity=False, lr=2.0, **AIRBENCH)
    assert optimizer.filters == (True, False) and optimizer.lr_multiplier == (0.12, 1.0)


def test_the_interval_of_the_norm_grows():
    assert norm_due(4, every=1, growth=0.0) == [True] * 4
    assert norm_due(5, every=2, growth=0.0) == [False, True, False, True, False]
    assert norm_due(6, every=1, growth=2.0) == [True, True, False, True, False, False]
    times = [t for t, due in enumerate(norm_due(243, every=2, growth=15.0), 1) if due]  # Hiverge's run
    assert times[:4] == [2, 4, 6, 8] and times[-1] - times[-2] == 16
