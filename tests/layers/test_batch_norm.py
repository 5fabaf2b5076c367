"""Batch normalisation of one card and over all cards by its formulas.

tests/system/test_distributed.py has two real ranks.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.common.errors import UserError
from src.layers import norm as module
from src.layers.conv import conv2d
from src.layers.norm import batch_norm2d, synchronise_batch_norm

CARDS = 2
EPS = 1e-5


def _normal(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def _statistics(x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance (divided by the count) and unbiased variance of each channel, float64."""
    x = x.astype(np.float64)
    count = x.size // x.shape[1]
    variance = x.var(axis=(0, 2, 3))
    return x.mean(axis=(0, 2, 3)), variance, variance * count / (count - 1)


def _normalise(x, mean, variance, eps) -> np.ndarray:
    shape = (1, -1, 1, 1)
    return (x.astype(np.float64) - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + eps)


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize(("momentum", "eps"), [(0.1, 1e-5), (0.6, 1e-2)])
def test_batch_norm_weighs_the_new_batch_by_momentum(momentum, eps):
    cell = batch_norm2d(channels=3, momentum=momentum, eps=eps)
    gamma, beta = np.array([1.0, 2.0, -0.5]), np.array([0.0, 1.0, -3.0])
    cell.gamma.set_data(ms.Tensor(gamma, ms.float32))
    cell.beta.set_data(ms.Tensor(beta, ms.float32))
    cell.set_train(True)
    running_mean, running_variance = np.zeros(3), np.ones(3)
    for step in range(3):
        x = 2 * _normal(4, 3, 3, 2, seed=step) + 5
        mean, variance, unbiased = _statistics(x)
        expected = _normalise(x, mean, variance, eps) * gamma[:, None, None] + beta[:, None, None]
        np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected, rtol=0, atol=2e-5)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_variance = (1 - momentum) * running_variance + momentum * unbiased
        np.testing.assert_allclose(cell.moving_mean.asnumpy(), running_mean, rtol=1e-5)
        np.testing.assert_allclose(cell.moving_variance.asnumpy(), running_variance, rtol=1e-5)

    cell.set_train(False)
    x = _normal(2, 3, 3, 2, seed=9)
    expected = _normalise(x, running_mean, running_variance, eps) * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(cell.moving_mean.asnumpy(), running_mean, rtol=1e-5)


@pytest.mark.usefixtures("graph_mode")
def test_batch_norm_of_a_constant_channel_is_its_offset():
    cell = batch_norm2d(channels=2)
    cell.set_train(True)
    out = cell(ms.Tensor(np.full((3, 2, 2, 2), 7, np.float32))).asnumpy()
    np.testing.assert_allclose(out, 0, atol=1e-3)


@pytest.mark.usefixtures("graph_mode")
def test_batch_norm_starts_as_the_identity_in_evaluation():
    cell = batch_norm2d(channels=2, eps=1e-9)
    cell.set_train(False)
    x = _normal(2, 2, 3, 3)
    np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), x, rtol=1e-6)


class AllAlike(nn.Cell):
    """Stands for the operator among cards that all have the same tensor."""

    def __init__(self, gathers):
        super().__init__()
        self.gathers = gathers

    def construct(self, x):
        return ops.concat([x] * CARDS) if self.gathers else x * CARDS


@pytest.fixture
def alike(monkeypatch, graph_mode):
    monkeypatch.setattr(module.ops, "AllGather", lambda: AllAlike(True))
    monkeypatch.setattr(module.ops, "AllReduce", lambda _: AllAlike(False))


def oracle(x, gamma, beta, dy):
    """float64: output, gradients for dy, mean, unbiased variance of the batches of all cards, all alike."""
    x = np.concatenate([x.astype(np.float64)] * CARDS)
    dy = np.concatenate([dy.astype(np.float64)] * CARDS)
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    mean, variance = x.mean(axes), x.var(axes)
    standard = (x - mean.reshape(shape)) / np.sqrt(variance + EPS).reshape(shape)
    y = standard * gamma.reshape(shape) + beta.reshape(shape)
    inner = dy - dy.mean(axes).reshape(shape) - standard * (dy * standard).mean(axes).reshape(shape)
    dx = inner * (gamma / np.sqrt(variance + EPS)).reshape(shape)
    mine = len(x) // CARDS
    count = x.size // x.shape[1]
    return (
        y[:mine], dx[:mine], (dy * standard)[:mine].sum(axes), dy[:mine].sum(axes), mean,
        variance * count / (count - 1),
    )  # fmt: skip


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_output_gradients_and_running_statistics(alike, offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 4, 5, 2)) + offset).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    norm = batch_norm2d(channels=4, momentum=0.25)
    gamma, beta = rng.normal(size=(2, 4)).astype(np.float32)
    norm.gamma.set_data(ms.Tensor(gamma))
    norm.beta.set_data(ms.Tensor(beta))
    synchronise_batch_norm(norm, cards=CARDS)
    norm.set_train(True)
    factors = ms.Tensor(dy)

    def weighted(x):
        return (norm(x) * factors).sum()

    weights = ms.ParameterTuple([norm.gamma, norm.beta])
    value_and_grad = ms.value_and_grad(weighted, 0, weights=weights)

    @ms.jit
    def in_graph(x):
        return value_and_grad(x)

    _, (dx, (dgamma, dbeta)) = in_graph(ms.Tensor(x))
    y, *expected, mean, variance = oracle(x, gamma, beta, dy)
    norm.moving_mean.set_data(ms.Tensor(np.zeros(4, np.float32)))
    norm.moving_variance.set_data(ms.Tensor(np.ones(4, np.float32)))
    tolerance = 1e-5 if offset == 0 else 1e-3  # an offset of 300 leaves float32 some 5 digits of the rest
    np.testing.assert_allclose(norm(ms.Tensor(x)).asnumpy(), y, rtol=tolerance, atol=tolerance)
    for found, value in zip((dx, dgamma, dbeta), expected, strict=True):
        np.testing.assert_allclose(found.asnumpy(), value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(norm.moving_mean.asnumpy(), 0.25 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.asnumpy(), 0.75 + 0.25 * variance, rtol=tolerance)


def test_evaluation_and_one_card_are_as_ever(graph_mode):
    rng = np.random.default_rng(1)
    x = ms.Tensor(rng.normal(size=(3, 4, 5, 5)).astype(np.float32))
    plain, one = batch_norm2d(channels=4), batch_norm2d(channels=4)
    synchronise_batch_norm(one, cards=1)
    for training in (True, False):
        answers = [norm.set_train(training)(x).asnumpy() for norm in (plain, one)]
        np.testing.assert_array_equal(*answers)
    np.testing.assert_array_equal(plain.moving_mean.asnumpy(), one.moving_mean.asnumpy())


def test_a_network_without_batch_normalisation_is_refused():
    with pytest.raises(UserError, match="no batch normalisation: leave sync_bn false"):
        synchronise_batch_norm(conv2d(in_channels=3, out_channels=3, kernel_size=3), cards=2)
