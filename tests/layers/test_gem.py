# SPDX-License-Identifier: Apache-2.0
"""Generalised-mean pooling against the official numbers and float64 formulas, at both ends of its range."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.gem import GeM, l2_normalise
from tests.vectors.official import error, read

pytestmark = pytest.mark.usefixtures("graph_mode")
MAPS = np.abs(np.random.default_rng(0).normal(size=(3, 4, 2, 5))).astype(np.float32)


def pooled(cell, x):
    return cell(ms.Tensor(x)).asnumpy()


def _first_column(x):
    return l2_normalise(x)[:, 0].sum()


def power_mean(x, p):
    return (np.maximum(x.astype(np.float64), 1e-6) ** p).mean(axis=(2, 3)) ** (1 / p)


@pytest.mark.parametrize("p", ["1.0", "2.0", "3.0", "4.5", "inf"])
def test_official_numbers(p):
    numbers = np.load("tests/vectors/multigrain.npz")
    assert error(pooled(GeM(float(p)), numbers["gem_input"].astype(np.float32)), numbers[f"gem_p_{p}"]) < 1e-6


@pytest.mark.parametrize("p", [0.5, 2.0, 3.0, 7.3, 30.0])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_no_power_overflows_or_vanishes(p, scale):
    assert error(pooled(GeM(p), scale * MAPS), power_mean(np.float32(scale) * MAPS, p)) < 1e-5


def test_the_ends_have_no_lower_limit():
    np.testing.assert_allclose(pooled(GeM(1.0), -MAPS), -MAPS.mean(axis=(2, 3)), rtol=1e-6)
    assert (pooled(GeM(np.inf), -MAPS) == -MAPS.min(axis=(2, 3))).all()
    np.testing.assert_allclose(pooled(GeM(3.0), -MAPS), 1e-6, rtol=1e-5)


def test_float16_maps_are_pooled_in_float32():
    x = (300 * MAPS).astype(np.float16)
    out = GeM(3.0)(ms.Tensor(x))
    assert out.dtype == ms.float32 and error(out.asnumpy(), power_mean(x, 3)) < 1e-5


@pytest.mark.parametrize("p", [1.7, 3.0])
def test_gradients_of_maps_and_of_the_exponent(p):
    cell = GeM(p, learn=True)
    weights = np.random.default_rng(1).normal(size=(3, 4))

    def forward(x):
        return (cell(x) * ms.Tensor(weights.astype(np.float32))).sum()

    x = MAPS.astype(np.float64)
    x[0, 0] = 0.0  # below the limit: no gradient, and not NaN
    maps, (exponent,) = ms.grad(forward, 0, weights=[cell.p])(ms.Tensor(x.astype(np.float32)))
    numeric = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        for sign in (1, -1):
            moved = x.copy()
            moved[at] += sign * 1e-5 * (x[at] > 0)
            numeric[at] += sign * (power_mean(moved, p) * weights).sum() / 2e-5
    assert error(maps.asnumpy(), numeric) < 1e-4
    slope = ((power_mean(x, p + 1e-5) - power_mean(x, p - 1e-5)) * weights).sum() / 2e-5
    assert exponent.asnumpy() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("learn", [False, True])
def test_another_exponent_in_evaluation(learn):
    cell = GeM(3.0, learn=learn, eval_exponent=np.inf).set_train(True)
    assert error(pooled(cell, MAPS), power_mean(MAPS, 3)) < 1e-6
    assert (pooled(cell.set_train(False), MAPS) == MAPS.max(axis=(2, 3))).all()


@pytest.mark.parametrize("arguments", [{"exponent": 0.0}, {"exponent": np.inf, "learn": True},
                                       {"eval_exponent": -1.0}])  # fmt: skip
def test_impossible_exponents(arguments):
    with pytest.raises(ValueError, match="exponents must be positive"):
        GeM(**arguments)


def test_normalised_rows():
    numbers = read("multigrain.npz")
    rows = numbers.embedding.astype(np.float32)
    assert error(l2_normalise(ms.Tensor(rows)).asnumpy(), numbers.normalized) < 1e-6
    extreme = np.array([[3, 4], [3e30, 4e30], [3e-4, 4e-4], [0, 0]], np.float32)
    expected = extreme / (np.linalg.norm(extreme.astype(np.float64), axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(l2_normalise(ms.Tensor(extreme)).asnumpy(), expected, rtol=1e-5)
    gradient = ms.grad(_first_column)(ms.Tensor(extreme))
    assert np.isfinite(gradient.asnumpy()).all()
    assert gradient.asnumpy()[0] == pytest.approx([16 / 125, -12 / 125], rel=1e-4)


def test_gradients_of_short_rows_fit_into_float16():
    rows = np.array([[0, 0], [6e-8, 6e-8], [3e-5, -4e-5], [3e-3, 4e-3]], np.float16)
    gradient = ms.grad(_first_column)(ms.Tensor(rows)).asnumpy()
    assert np.isfinite(gradient).all() and (np.abs(gradient) < 1001).all()
    assert not gradient[0].any()
    expected = np.array([16, -12]) / 125 * 1e3
    assert gradient[3] == pytest.approx(expected, rel=1e-2)
    assert gradient[2] == pytest.approx(np.array([16, 12]) / 125 * 1e5 * 0.04, rel=0.1)  # a 25th of its slope
