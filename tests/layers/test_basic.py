"""Convolution, batch normalisation and dense layer against loops and formulas in float64."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.basic import batch_norm2d, conv2d, dense

pytestmark = pytest.mark.usefixtures("graph_mode")


def _normal(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def _convolution(x, weight, *, stride) -> np.ndarray:
    """Loops over every output; k // 2 zeros on each side of the image."""
    out_channels, _, k, _ = weight.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height = (x.shape[2] + 2 * (k // 2) - k) // stride + 1
    width = (x.shape[3] + 2 * (k // 2) - k) // stride + 1
    out = np.zeros((len(x), out_channels, height, width))
    for n, o, i, j in np.ndindex(out.shape):
        window = padded[n, :, i * stride : i * stride + k, j * stride : j * stride + k]
        out[n, o, i, j] = (window * weight[o]).sum()
    return out


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [((6, 6), 3, 1), ((8, 6), 3, 2), ((7, 5), 3, 2), ((8, 8), 1, 2), ((8, 8), 5, 2), ((1, 1), 3, 1)],
)
def test_convolution_pads_both_sides_alike(size, kernel, stride):
    cell = conv2d(in_channels=2, out_channels=3, kernel_size=kernel, stride=stride)
    weight, x = _normal(3, 2, kernel, kernel), _normal(2, 2, *size)
    cell.weight.set_data(ms.Tensor(weight))
    expected = _convolution(x, weight, stride=stride)
    result = cell(ms.Tensor(x)).asnumpy()
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_convolution_with_a_bias():
    cell = conv2d(in_channels=2, out_channels=3, kernel_size=3, bias=True)
    cell.bias.set_data(ms.Tensor([1.0, -2.0, 0.5]))
    result = cell(ms.Tensor(_normal(1, 2, 4, 4))).asnumpy()
    assert (result == np.array([1.0, -2.0, 0.5], np.float32)[:, None, None]).all()
    assert not conv2d(in_channels=2, out_channels=3, kernel_size=3).has_bias


def _statistics(x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance (divided by the count) and unbiased variance of each channel, float64."""
    x = x.astype(np.float64)
    count = x.size // x.shape[1]
    variance = x.var(axis=(0, 2, 3))
    return x.mean(axis=(0, 2, 3)), variance, variance * count / (count - 1)


def _normalise(x, mean, variance, eps) -> np.ndarray:
    shape = (1, -1, 1, 1)
    return (x.astype(np.float64) - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + eps)


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


def test_batch_norm_of_a_constant_channel_is_its_offset():
    cell = batch_norm2d(channels=2)
    cell.set_train(True)
    out = cell(ms.Tensor(np.full((3, 2, 2, 2), 7, np.float32))).asnumpy()
    np.testing.assert_allclose(out, 0, atol=1e-3)


def test_batch_norm_starts_as_the_identity_in_evaluation():
    cell = batch_norm2d(channels=2, eps=1e-9)
    cell.set_train(False)
    x = _normal(2, 2, 3, 3)
    np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), x, rtol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_dense(bias):
    cell = dense(in_channels=4, out_channels=3, bias=bias)
    weight, offset, x = _normal(3, 4), _normal(3), _normal(5, 4)
    cell.weight.set_data(ms.Tensor(weight))
    if bias:
        cell.bias.set_data(ms.Tensor(offset))
    expected = x.astype(np.float64) @ weight.T + (offset if bias else 0)
    np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected, rtol=0, atol=1e-5)
    assert len(cell.trainable_params()) == 1 + bias


def test_weights_are_zero_until_they_are_initialised():
    for cell in (conv2d(in_channels=2, out_channels=3, kernel_size=3), dense(in_channels=2, out_channels=3)):
        assert not cell.weight.asnumpy().any()
