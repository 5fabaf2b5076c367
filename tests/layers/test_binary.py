# SPDX-License-Identifier: Apache-2.0
"""Every quantiser, forward and backward, against float64 formulas; and the convolution."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.common.errors import UserError
from src.layers.activation import activation
from src.layers.binary import (
    ApproxSign,
    BinaryConv2d,
    LeakyClip,
    ScaledSign,
    SteSign,
    UnitDeviation,
)
from src.training.precision import set_precision
from tests.layers.test_weight_standardization import convolve

pytestmark = pytest.mark.usefixtures("graph_mode")

# Both sides of every corner, the corners, zeros of both signs, and the smallest numbers.
POINTS = np.float32([0.0, 1e-30, 1e-6, 0.25, 0.5, 0.9999, 1, 1.0001, 1.5, 3])
POINTS = np.concatenate([-POINTS[::-1], POINTS])


def value_and_gradient(cell: nn.Cell, x: np.ndarray, slope: np.ndarray):
    """cell(x), and the gradient of (cell(x) * slope).sum() by x."""
    cell.set_train()

    def forward(x):
        out = cell(x)
        return (out * ms.Tensor(slope)).sum(), out

    (_, out), gradient = ms.value_and_grad(forward, 0, has_aux=True)(ms.Tensor(x))
    return out.asnumpy(), gradient.asnumpy()


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def approx_slope(x):
    """The derivative of the piecewise quadratic, piece by piece."""
    return np.select([x < -1, x < 0, x < 1], [0 * x, 2 + 2 * x, 2 - 2 * x], 0.0)


ORACLES = {
    "approx_sign": (sign, approx_slope),
    "ste_sign": (sign, lambda x: (np.abs(x) <= 1) * 1.0),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "leaky_clip": (
        lambda x: np.select([x < -1, x > 1], [0.1 * x - 0.9, 0.1 * x + 0.9], x),
        lambda x: np.where(np.abs(x) <= 1, 1.0, 0.1),
    ),
    "clip": (lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) <= 1) * 1.0),
}


@pytest.mark.parametrize("name", ORACLES)
def test_activations_against_their_formulas(name):
    x = np.concatenate([POINTS, np.random.default_rng(0).normal(size=480).astype(np.float32)])
    slope = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    out, gradient = value_and_gradient(activation(name), x, slope)
    forward, derivative = ORACLES[name]
    x64 = x.astype(np.float64)
    np.testing.assert_allclose(out, forward(x64), rtol=1e-6, atol=1e-7)
    corners = np.isin(np.abs(x), [1.0]) if name in ("leaky_clip", "clip") else np.zeros(x.shape, bool)
    expected = slope * derivative(x64)
    np.testing.assert_allclose(gradient[~corners], expected[~corners], rtol=1e-5, atol=1e-6)


def test_signs_are_exact_and_zero_is_positive():
    for cell in (ApproxSign(), SteSign()):
        out = cell(ms.Tensor(POINTS)).asnumpy()
        assert set(out.tolist()) == {-1.0, 1.0}
        assert (out[POINTS == 0] == 1).all()
        assert out[list(POINTS).index(np.float32(-1e-30))] == -1


def test_infinite_inputs_have_no_gradient():
    x = np.array([-np.inf, np.inf], np.float32)
    out, gradient = value_and_gradient(ApproxSign(), x, np.ones(2, np.float32))
    assert out.tolist() == [-1, 1] and gradient.tolist() == [0, 0]


@pytest.mark.parametrize("gradient", ["clipped", "scaled_identity"])
def test_scaled_sign_against_a_loop(gradient):
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.8, (5, 4, 3, 3)).astype(np.float32)
    w[0] = 0
    w[1, 0, 0, :2] = 0, 1
    slope = rng.normal(size=w.shape).astype(np.float32)
    out, ours = value_and_gradient(ScaledSign(gradient=gradient), w, slope)
    for filter_, slope_, out_, ours_ in zip(w.astype(np.float64), slope, out, ours, strict=True):
        alpha = sum(abs(value) for value in filter_.ravel()) / filter_.size
        np.testing.assert_allclose(out_, alpha * sign(filter_), rtol=1e-6)
        expected = slope_ * (np.abs(filter_) <= 1) if gradient == "clipped" else slope_ * alpha
        np.testing.assert_allclose(ours_, expected, rtol=1e-6, atol=1e-9)


def test_unit_deviation_against_central_differences():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (2, 3, 4, 4))
    slope = rng.normal(size=x.shape)

    def oracle(x):
        return x / np.sqrt(x.var(axis=(1, 2, 3), keepdims=True) + 1e-10)

    out, gradient = value_and_gradient(UnitDeviation(), x.astype(np.float32), slope.astype(np.float32))
    np.testing.assert_allclose(out, oracle(x), rtol=1e-5, atol=1e-5)
    for index in np.ndindex(2, 3, 4, 4):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        difference = ((oracle(x + step) - oracle(x - step)) * slope).sum() / 2e-5
        assert gradient[index] == pytest.approx(difference, abs=2e-5)


def test_unit_deviation_leaves_evaluation_alone_and_survives_a_constant_image():
    x = np.full((2, 3, 4, 4), 5, np.float32)
    cell = UnitDeviation()
    assert (cell.set_train(False)(ms.Tensor(x)).asnumpy() == x).all()
    out, gradient = value_and_gradient(UnitDeviation(), x, np.ones_like(x))
    assert np.isfinite(out).all() and np.isfinite(gradient).all()


X = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_convolution_of_signs(kernel_size, stride):
    conv = BinaryConv2d(
        in_channels=4, out_channels=6, kernel_size=kernel_size, stride=stride, quantiser=ScaledSign()
    )
    weight = np.random.default_rng(3).normal(0, 0.3, conv.weight.shape).astype(np.float32)
    conv.weight.set_data(ms.Tensor(weight))
    alpha = np.abs(weight.astype(np.float64)).mean(axis=(1, 2, 3), keepdims=True)
    border = kernel_size // 2
    expected = convolve(sign(X), alpha * sign(weight), stride, border, border)
    np.testing.assert_allclose(conv(ms.Tensor(sign(X).astype(np.float32))).asnumpy(), expected, atol=1e-5)
    assert conv.weight_bits == conv.input_bits == 1


def test_mixed_precision_keeps_the_scale_in_float32():
    """A mean of 1,152 weights of 1e-4 needs more than float16 has: its smallest numbers are 6e-8 apart."""
    conv = BinaryConv2d(in_channels=128, out_channels=2, kernel_size=3, quantiser=ScaledSign())
    weight = np.random.default_rng(0).uniform(1e-6, 2e-4, conv.weight.shape).astype(np.float32)
    conv.weight.set_data(ms.Tensor(weight))
    x = np.random.default_rng(1).normal(size=(1, 128, 5, 5)).astype(np.float32)
    plain = nn.SequentialCell(ApproxSign(), conv)
    expected = plain(ms.Tensor(x)).asnumpy()
    mixed = set_precision(nn.SequentialCell(ApproxSign(), conv), "O2")
    out = mixed(ms.Tensor(x))
    assert out.dtype == ms.float16
    np.testing.assert_allclose(out.asnumpy(), expected, rtol=2e-3, atol=1e-6)


class UsedTwice(nn.Cell):
    """x quantised, plus x itself: both gradients meet in x, as in a block with a shortcut."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def construct(self, x):
        return (self.cell(x) + x).astype(ms.float32)


@pytest.mark.parametrize("level", ["O2", "auto"])
@pytest.mark.parametrize(
    "cell",
    [ApproxSign, SteSign, ScaledSign, lambda: ScaledSign(gradient="scaled_identity")],
    ids=["approx", "ste", "clipped", "scaled"],
)
def test_gradients_come_back_in_the_type_of_the_input(graph_mode, cell, level):
    """The gradient of a float16 input is float16, or the compiler cannot add it to that of the other use."""
    x = np.array([[-2, -0.75, -0.25, 0.5, 4]], np.float32)
    slope = np.ones_like(x)
    _, expected = value_and_gradient(UsedTwice(cell()), x, slope)
    _, found = value_and_gradient(set_precision(UsedTwice(cell()), level), x, slope)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="gradient is 'identity'; known are clipped, scaled_identity"):
        ScaledSign(gradient="identity")
    assert LeakyClip().slope == 0.1
