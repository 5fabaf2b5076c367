# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation of one card, of splits of a batch, and over all cards by its formulas.

tests/system/test_distributed.py has two real ranks.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.common.errors import UserError
from src.layers import norm as module
from src.layers.conv import conv2d
from src.layers.device import use_plain_operators
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


def test_a_fixed_scale_is_not_trained():
    assert [p.name for p in batch_norm2d(channels=2, scale="fixed").trainable_params()] == ["beta"]


# --- ghost batch normalisation


@pytest.mark.parametrize("on_cpu", [True, False])
def test_ghost_batches_are_batch_normalisation_of_each_split(graph_mode, on_cpu):
    """Values, gradients, and running statistics, which are those of the splits' mean."""
    splits, momentum = 3, 0.25
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(12, 4, 5, 2)) + rng.normal(size=(12, 4, 1, 1))).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    norm = batch_norm2d(channels=4, momentum=momentum, ghost_batch=4).set_train(True)
    if not on_cpu:
        use_plain_operators(norm)
    gamma, beta = rng.normal(size=(2, 4)).astype(np.float32)
    norm.gamma.set_data(ms.Tensor(gamma))
    norm.beta.set_data(ms.Tensor(beta))
    factors = ms.Tensor(dy)

    def weighted(x):
        y = norm(x)
        return (y * factors).sum(), y

    weights = ms.ParameterTuple([norm.gamma, norm.beta])
    value_and_grad = ms.value_and_grad(weighted, 0, weights=weights, has_aux=True)

    @ms.jit
    def in_graph(x):
        return value_and_grad(x)

    (_, y), (dx, (dgamma, dbeta)) = in_graph(ms.Tensor(x))
    expected_y, expected_dx, sums = np.empty(x.shape), np.empty(x.shape), []
    for split in range(splits):
        mine = slice(split, None, splits)
        # of CARDS cards that are all alike, as of one
        expected_y[mine], expected_dx[mine], *both, mean, _ = oracle(x[mine], gamma, beta, dy[mine])
        sums.append((*both, mean, _statistics(x[mine])[2]))
    of_gamma, of_beta, mean, variance = np.array(sums).transpose(1, 0, 2)
    found = (y, dx, dgamma, dbeta, norm.moving_mean, norm.moving_variance)
    running = momentum * mean.mean(0), 1 - momentum + momentum * variance.mean(0)
    expected = expected_y, expected_dx, of_gamma.sum(0), of_beta.sum(0), *running
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.asnumpy(), other, rtol=1e-5, atol=2e-5)


def test_ghost_batches_evaluate_as_ever_and_a_batch_of_one_split_is_the_batch(graph_mode):
    x = ms.Tensor(_normal(4, 3, 5, 5))
    plain, ghost = batch_norm2d(channels=3), batch_norm2d(channels=3, ghost_batch=4)
    for training in (True, False):
        answers = [norm.set_train(training)(x).asnumpy() for norm in (plain, ghost)]
        np.testing.assert_allclose(*answers, rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain.moving_variance.asnumpy(), ghost.moving_variance.asnumpy(), rtol=1e-6)


@pytest.mark.usefixtures("without_graph")
def test_a_batch_without_whole_splits_is_refused():
    norm = batch_norm2d(channels=2, ghost_batch=4).set_train(True)
    with pytest.raises(ValueError, match="a batch of 6 images has no whole splits of 4"):
        norm(ms.Tensor(_normal(6, 2, 3, 3)))


def test_ghost_batches_cannot_be_synchronised():
    with pytest.raises(UserError, match="sync_bn: true given, but with a ghost_batch there is nothing"):
        synchronise_batch_norm(batch_norm2d(channels=3, ghost_batch=4), cards=2)
