# SPDX-License-Identifier: Apache-2.0
"""Inverses against numpy's in float64, as a CPU makes them and as a card does."""

import mindspore as ms
import numpy as np
import pytest

from src.optim.thor.inverse import DampedInverse

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.mark.parametrize("on_cpu", [True, False])
def test_inverses_of_full_and_of_low_rank(on_cpu):
    rng = np.random.default_rng(0)
    full, low = rng.normal(size=(2, 6, 9)), rng.normal(size=(1, 6, 2))
    matrices = np.concatenate([full @ full.swapaxes(1, 2), low @ low.swapaxes(1, 2), np.zeros((1, 6, 6))])
    damping = np.array([0.1, 0.01, 0.01, 0.5])
    invert = DampedInverse(6)
    invert.on_cpu = on_cpu
    found, raised = invert(ms.Tensor(matrices, ms.float32), ms.Tensor(damping, ms.float32))
    expected = np.linalg.inv(matrices + damping[:, None, None] * np.eye(6))
    for one, other in zip(found.asnumpy(), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max(), rtol=0)
    assert raised.asnumpy() == 0


@pytest.mark.parametrize("on_cpu", [True, False])
def test_damping_is_raised_where_rounding_would_make_a_block_singular(on_cpu):
    low = np.random.default_rng(1).normal(size=(2, 6, 1))
    matrices = low @ low.swapaxes(1, 2)
    invert = DampedInverse(6)
    invert.on_cpu = on_cpu
    found, raised = invert(ms.Tensor(matrices, ms.float32), ms.Tensor([1e-12, 0.1], ms.float32))
    least = 8 * np.finfo(np.float32).eps * 6 * matrices[0].diagonal().max()
    assert raised.asnumpy() == 1 and np.isfinite(found.asnumpy()).all()
    # What is orthogonal to the one direction is damping alone.
    assert np.abs(found.asnumpy()[0]).max() == pytest.approx(1 / least, rel=0.2)
