# SPDX-License-Identifier: Apache-2.0
"""Group normalisation against a float64 loop, in training (on a CPU a form of its own) and evaluation."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.norm import GroupNorm
from src.training.precision import set_precision

pytestmark = pytest.mark.usefixtures("graph_mode")


def oracle(x, gamma, beta, groups, eps=1e-5):
    out = np.empty(x.shape)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for group in range(groups):
            rows = slice(group * size, (group + 1) * size)
            values = x[n, rows].astype(np.float64)
            out[n, rows] = (values - values.mean()) / np.sqrt(values.var() + eps)
    return out * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)


def gradients(x, dy, gamma, groups, eps=1e-5):
    """Of sum(oracle * dy) by x, gamma and beta, from the formulas, in float64."""
    unit = oracle(x, np.ones_like(gamma), np.zeros_like(gamma), groups, eps)
    weighted = dy * gamma.reshape(1, -1, 1, 1)
    dx = np.empty(x.shape)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for group in range(groups):
            rows = slice(group * size, (group + 1) * size)
            g, u = weighted[n, rows], unit[n, rows]
            deviation = np.sqrt(x[n, rows].astype(np.float64).var() + eps)
            dx[n, rows] = (g - g.mean() - u * (g * u).mean()) / deviation
    return dx, (dy * unit).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))


def new(channels, groups, seed=0):
    rng = np.random.default_rng(seed)
    norm = GroupNorm(channels=channels, groups=groups)
    gamma, beta = rng.normal(1, 0.3, channels), rng.normal(0, 0.3, channels)
    norm.gamma.set_data(ms.Tensor(gamma.astype(np.float32)))
    norm.beta.set_data(ms.Tensor(beta.astype(np.float32)))
    return norm, norm.gamma.asnumpy().astype(np.float64), norm.beta.asnumpy().astype(np.float64)


SHAPES = [((2, 8, 5, 3), 4), ((3, 4, 4, 4), 4), ((1, 6, 1, 1), 2), ((2, 6, 7, 2), 1), ((2, 4, 1, 6), 2)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_values(shape, groups, training):
    norm, gamma, beta = new(shape[1], groups)
    norm.set_train(training)
    x = np.random.default_rng(1).normal(3, 2, shape).astype(np.float32)
    np.testing.assert_allclose(norm(ms.Tensor(x)).asnumpy(), oracle(x, gamma, beta, groups), atol=3e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "groups"), [s for s in SHAPES if s[0][2:] != (1, 1)])
def test_gradients(shape, groups, training):
    norm, gamma, _ = new(shape[1], groups)
    norm.set_train(training)
    rng = np.random.default_rng(2)
    x, dy = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    weights = ms.ParameterTuple([norm.gamma, norm.beta])

    def forward(images, d):
        return (norm(images) * d).sum()

    _, (dx, (dgamma, dbeta)) = ms.value_and_grad(forward, 0, weights)(ms.Tensor(x), ms.Tensor(dy))
    for ours, theirs in zip((dx, dgamma, dbeta), gradients(x, dy.astype(np.float64), gamma, groups)):
        np.testing.assert_allclose(ours.asnumpy(), theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


def test_a_second_step_gives_the_same():
    """The batch normalisation inside keeps statistics of its own; nothing may depend on them."""
    norm, _, _ = new(8, 4)
    norm.set_train(True)
    x = ms.Tensor(np.random.default_rng(3).normal(5, 3, (2, 8, 4, 4)).astype(np.float32))
    first = norm(x).asnumpy()
    for _ in range(3):
        norm(x)
    np.testing.assert_array_equal(norm(x).asnumpy(), first)


def test_a_constant_group_gives_beta():
    norm, _, beta = new(4, 2)
    for training in (True, False):
        norm.set_train(training)
        out = norm(ms.Tensor(np.full((1, 4, 3, 3), 7, np.float32))).asnumpy()
        np.testing.assert_allclose(out, np.broadcast_to(beta.reshape(1, 4, 1, 1), out.shape), atol=1e-5)


def test_stays_in_float32_under_mixed_precision():
    """A large offset, as float16 would lose the variance behind it."""
    norm, gamma, beta = new(4, 2)
    set_precision(norm, "O2")
    x = (2000 + np.random.default_rng(4).normal(0, 1, (2, 4, 6, 6))).astype(np.float32)
    for training in (True, False):
        norm.set_train(training)
        np.testing.assert_allclose(norm(ms.Tensor(x)).asnumpy(), oracle(x, gamma, beta, 2), atol=5e-3)
