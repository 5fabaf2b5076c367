# SPDX-License-Identifier: Apache-2.0
"""Convolution with standardised weights against a float64 loop, folded and not."""

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.layers.weight_standardization import StdConv2d, standardised
from src.training.precision import set_precision

pytestmark = pytest.mark.usefixtures("graph_mode")


def standardise(weight):
    """By loops, in float64."""
    out = np.empty(weight.shape)
    for channel in range(len(weight)):
        values = weight[channel].astype(np.float64)
        mean = values.sum() / values.size
        variance = ((values - mean) ** 2).sum() / values.size
        out[channel] = (values - mean) / np.sqrt(variance + 1e-10)
    return out


def convolve(x, weight, stride, before, after):
    """(N, I, H, W) with `before` zeros on the top and left and `after` on the bottom and right."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (before, after), (before, after)))
    k = weight.shape[-1]
    rows = (x.shape[2] - k) // stride + 1
    columns = (x.shape[3] - k) // stride + 1
    out = np.empty((len(x), len(weight), rows, columns))
    for i, j in np.ndindex(rows, columns):
        window = x[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
        out[:, :, i, j] = np.einsum("nihw,oihw->no", window, weight)
    return out


def new(kernel_size=3, stride=1, padding="symmetric", scale=0.05):
    conv = StdConv2d(in_channels=4, out_channels=6, kernel_size=kernel_size, stride=stride, padding=padding)
    weight = np.random.default_rng(0).normal(0.02, scale, conv.weight.shape).astype(np.float32)
    conv.weight.set_data(ms.Tensor(weight))
    return conv, weight


X = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "before", "after"),
    [
        (1, 1, "symmetric", 0, 0),
        (1, 2, "symmetric", 0, 0),
        (3, 1, "symmetric", 1, 1),
        (3, 2, "symmetric", 1, 1),
        (7, 2, "symmetric", 3, 3),
        (3, 2, "same", 0, 1),
        (3, 1, "same", 1, 1),
    ],
)
def test_values(kernel_size, stride, padding, before, after, training):
    conv, weight = new(kernel_size, stride, padding)
    conv.set_train(training)
    expected = convolve(X, standardise(weight), stride, before, after)
    np.testing.assert_allclose(conv(ms.Tensor(X)).asnumpy(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_of_the_raw_weight(training):
    conv, weight = new(1)
    conv.set_train(training)
    dy = np.random.default_rng(2).normal(size=(2, 6, 8, 8)).astype(np.float32)

    def forward(x, d):
        return (conv(x) * d).sum()

    _, (ours,) = ms.value_and_grad(forward, None, ms.ParameterTuple([conv.weight]))(
        ms.Tensor(X), ms.Tensor(dy)
    )
    g = np.einsum("nohw,nihw->oi", dy.astype(np.float64), X)
    flat = weight.reshape(6, 4).astype(np.float64)
    deviation = np.sqrt(flat.var(1, keepdims=True) + 1e-10)
    unit = (flat - flat.mean(1, keepdims=True)) / deviation
    expected = (g - g.mean(1, keepdims=True) - unit * (g * unit).mean(1, keepdims=True)) / deviation
    np.testing.assert_allclose(
        ours.asnumpy().reshape(6, 4), expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-4
    )


@pytest.mark.parametrize("training", [True, False])
def test_weights_as_small_as_the_epsilon(training):
    """With a deviation of 1e-5, epsilon 1e-10 is half of what is under the root; in float16 it is 0."""
    conv, weight = new(scale=1e-5)
    weight -= weight.mean()
    conv.weight.set_data(ms.Tensor(weight))
    conv.set_train(training)
    expected = convolve(X, standardise(weight), 1, 1, 1)
    np.testing.assert_allclose(conv(ms.Tensor(X)).asnumpy(), expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(standardise(weight)).max() < 0.9 * np.abs(standardise(weight * 1e3)).max()


def test_a_constant_weight_gives_zero():
    conv, weight = new()
    conv.weight.set_data(ms.Tensor(np.full_like(weight, 0.25)))
    for training in (True, False):
        conv.set_train(training)
        assert np.abs(conv(ms.Tensor(X)).asnumpy()).max() == 0


@pytest.mark.parametrize("training", [True, False])
def test_weights_are_standardised_in_float32_under_mixed_precision(training):
    """Behind an offset of 8, float16 keeps steps of 1/128, and nothing of a deviation of 1/1000."""
    conv, weight = new(1)
    weight = (8 + np.random.default_rng(3).normal(0, 1e-3, weight.shape)).astype(np.float32)
    conv.weight.set_data(ms.Tensor(weight))
    set_precision(conv, "O2")
    conv.set_train(training)
    expected = convolve(X, standardise(weight), 1, 0, 0)
    np.testing.assert_allclose(conv(ms.Tensor(X)).asnumpy(), expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_folding_stores_the_standardised_weight(kernel_size):
    conv, weight = new(kernel_size, 2)
    conv.set_train(False)
    before = conv(ms.Tensor(X)).asnumpy()
    conv.fold()
    np.testing.assert_allclose(conv.weight.asnumpy(), standardise(weight), atol=1e-6)
    other, _ = new(kernel_size, 2)
    other.weight.set_data(conv.weight)
    other.folded = True
    other.set_train(False)
    after = other(ms.Tensor(X)).asnumpy()
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()


def test_standardised_keeps_shape_and_type():
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    out = standardised(weight)
    assert out.shape == weight.shape and out.dtype == np.float32
    np.testing.assert_allclose(out, standardise(weight), atol=1e-6)


def test_an_unknown_padding():
    with pytest.raises(UserError, match="padding is 'valid'; known are symmetric, same"):
        StdConv2d(in_channels=1, out_channels=1, kernel_size=3, padding="valid")
