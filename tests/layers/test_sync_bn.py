"""Batch normalisation over all cards by its formulas; tests/system/test_distributed.py has two real ranks."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.common.errors import UserError
from src.layers import sync_bn
from src.layers.basic import batch_norm2d, conv2d
from src.layers.sync_bn import synchronise_batch_norm

CARDS = 2
EPS = 1e-5


class AllAlike(nn.Cell):
    """Stands for the operator among cards that all have the same tensor."""

    def __init__(self, gathers):
        super().__init__()
        self.gathers = gathers

    def construct(self, x):
        return ops.concat([x] * CARDS) if self.gathers else x * CARDS


@pytest.fixture
def alike(monkeypatch, graph_mode):
    monkeypatch.setattr(sync_bn.ops, "AllGather", lambda: AllAlike(True))
    monkeypatch.setattr(sync_bn.ops, "AllReduce", lambda _: AllAlike(False))


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
