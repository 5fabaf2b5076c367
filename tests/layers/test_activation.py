# SPDX-License-Identifier: Apache-2.0
"""Activations and their gradients against their formulas in float64."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.common.errors import UserError
from src.layers.activation import _CELLS, NON_DECREASING, activation, is_sign
from src.layers.names import ACTIVATIONS
from src.training.precision import set_precision

pytestmark = pytest.mark.usefixtures("graph_mode")

X = np.unique(
    np.concatenate([np.linspace(-6, 6, 101), [-80, -30, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 30, 80]])
).astype(np.float32)


def _celu(x, alpha):
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)


def _celu_gradient(x, alpha):
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / alpha))


def _phi(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def _gelu(x):
    return x * _phi(x)


def _gelu_gradient(x):
    return _phi(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _both(cell):
    """Values and gradients at X."""

    def total(x):
        values = cell(x)
        return values.sum(), values

    (_, values), gradients = ms.value_and_grad(total, has_aux=True)(ms.Tensor(X))
    return values.asnumpy(), gradients.asnumpy()


@pytest.mark.parametrize("alpha", [0.075, 0.3, 1.0, 2.0])
def test_celu(alpha):
    values, gradients = _both(activation("celu", celu_alpha=alpha))
    x = X.astype(np.float64)
    np.testing.assert_allclose(values, _celu(x, alpha), rtol=1e-6, atol=3e-6 * alpha)
    off_zero = X != 0
    np.testing.assert_allclose(gradients[off_zero], _celu_gradient(x, alpha)[off_zero], rtol=1e-5, atol=1e-6)


def test_gelu():
    values, gradients = _both(activation("gelu"))
    x = X.astype(np.float64)
    np.testing.assert_allclose(values, _gelu(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, _gelu_gradient(x), rtol=1e-5, atol=1e-5)


def test_silu():
    values, gradients = _both(activation("silu"))
    x = X.astype(np.float64)
    share = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(values, x * share, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, share * (1 + x * (1 - share)), rtol=1e-5, atol=1e-6)


def test_relu():
    values, gradients = _both(activation("relu"))
    assert (values == np.maximum(X, 0)).all()
    assert (gradients == (X > 0)).all()


@pytest.mark.parametrize("name", ["celu", "gelu", "silu"])
def test_half_precision_between_float32_layers(name):
    """As between two normalisations under mixed precision: values, and gradients in the type of the input."""
    half = set_precision(nn.SequentialCell(activation(name)), "O2")
    values, gradients = _both(half)
    assert values.dtype == np.float16 and gradients.dtype == np.float32
    for found, exact in zip((values, gradients), _both(activation(name)), strict=True):
        np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_any_shape_is_kept(name):
    cell = activation(name)
    for shape in [(2, 3, 4, 5), (7,), ()]:
        assert cell(ms.Tensor(np.ones(shape, np.float32))).shape == shape


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_which_activations_may_follow_a_maximum(name):
    values = activation(name, celu_alpha=0.3)(ms.Tensor(np.sort(X))).asnumpy()
    assert bool((np.diff(values) >= 0).all()) == (name in NON_DECREASING)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_which_activations_leave_one_bit(name):
    assert (set(activation(name)(ms.Tensor(X)).asnumpy()) == {-1, 1}) == is_sign(name)


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"activation is 'swish'; known are relu, celu, gelu"):
        activation("swish")
    assert tuple(_CELLS) == ACTIVATIONS
