# SPDX-License-Identifier: Apache-2.0
"""Convolution and dense layer against loops and formulas in float64."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.conv import conv2d, dense

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


@pytest.mark.usefixtures("without_graph")
@pytest.mark.parametrize(
    ("size", "left"), [((7, 5), (6, 4)), ((6, 4), (6, 4)), ((7, 4), (7, 4)), ((6, 5), (6, 5))]
)
@pytest.mark.parametrize("bias", [True, False])
def test_an_even_convolution_leaves_out_what_pooling_drops(size, left, bias):
    layer = conv2d(in_channels=3, out_channels=2, kernel_size=3, bias=bias, even=True)
    x, weight, added = _normal(2, 3, *size), _normal(2, 3, 3, 3), _normal(2) * bias
    layer.weight.set_data(ms.Tensor(weight))
    if bias:
        layer.bias.set_data(ms.Tensor(added))
    expected = _convolution(x, weight, stride=1) + added.reshape(2, 1, 1)
    result = layer(ms.Tensor(x)).asnumpy()
    assert result.shape == (2, 2, *left)
    np.testing.assert_allclose(result, expected[:, :, : left[0], : left[1]], rtol=0, atol=1e-5)


def test_weights_are_zero_until_they_are_initialised():
    for cell in (conv2d(in_channels=2, out_channels=3, kernel_size=3), dense(in_channels=2, out_channels=3)):
        assert not cell.weight.asnumpy().any()
