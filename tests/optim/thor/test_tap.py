# SPDX-License-Identifier: Apache-2.0
"""What a tap sees is what its layer multiplies its weights with, for every window."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.binary import BinaryConv2d
from src.layers.conv import conv2d, dense
from src.layers.weight_standardization import StdConv2d
from src.optim.thor.tap import Tap

IN = 2


def convolution(kernel, **how):
    return conv2d(in_channels=IN, out_channels=IN * kernel**2, kernel_size=kernel, **how)


def standardised(kernel, **how):
    cell = StdConv2d(in_channels=IN, out_channels=IN * kernel**2, kernel_size=kernel, **how)
    cell.folded = True  # the weight is used as it is
    return cell


def binary(kernel, **how):
    return BinaryConv2d(
        in_channels=IN, out_channels=IN * kernel**2, kernel_size=kernel, quantiser=None, **how
    )


@pytest.mark.parametrize(
    ("cell", "size"),
    [
        (lambda: convolution(3), 6),
        (lambda: convolution(3, stride=2), 6),
        (lambda: convolution(3, stride=2, padding=0), 6),
        (lambda: convolution(2, padding=0), 5),
        (lambda: convolution(1), 5),
        (lambda: convolution(1, stride=2), 5),
        (lambda: convolution(3, even=True), 7),
        (lambda: convolution(3, even=True), 6),
        (lambda: standardised(3, stride=2, padding="same"), 6),
        (lambda: standardised(3, stride=2, padding="same"), 7),
        (lambda: standardised(3, stride=2), 6),
        (lambda: binary(3), 4),
    ],
    ids=[
        "3x3", "stride", "no padding", "2x2", "1x1", "1x1 with stride", "even of odd", "even", "same of even",
        "same of odd", "standardised", "binary",
    ],
)  # fmt: skip
def test_the_input_factor_is_that_of_the_windows(cell, size):
    cell = cell()
    kernel = cell.window.kernel
    # One filter for each place in the window: what comes out is what the window shows.
    weight = np.eye(IN * kernel**2, dtype=np.float32).reshape(-1, IN, kernel, kernel)
    cell.weight.set_data(ms.Tensor(weight))
    x = np.random.default_rng(size).normal(size=(3, IN, size, size)).astype(np.float32)
    seen = cell(ms.Tensor(x)).asnumpy().astype(np.float64)
    positions = seen.shape[2] * seen.shape[3]
    rows = seen.swapaxes(0, 1).reshape(len(weight), -1)
    tap = Tap("w", weight.shape, window=cell.window, bias=True, most=1000)
    rows = np.concatenate([rows, np.ones((1, rows.shape[1]))])
    expected = rows @ rows.T / (len(x) * np.sqrt(positions))
    found = tap.input_factor.factor(ms.Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, expected[None], rtol=1e-5, atol=1e-5)


def test_the_factors_of_a_dense_layer():
    cell = dense(in_channels=3, out_channels=2)
    tap = Tap("w", cell.weight.shape, window=None, bias=False, most=2)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    a = tap.input_factor.factor(ms.Tensor(x)).asnumpy()
    whole = x.T.astype(np.float64) @ x / 5
    np.testing.assert_allclose(a[0], whole[:2, :2], rtol=1e-5)
    np.testing.assert_allclose(a[1], [[whole[2, 2], 0], [0, 0]], rtol=1e-5)
    dy = x[:, :2]
    g = tap.output_factor.factor(ms.Tensor(dy)).asnumpy()
    np.testing.assert_allclose(g[0], 5 * dy.T.astype(np.float64) @ dy, rtol=1e-5)
