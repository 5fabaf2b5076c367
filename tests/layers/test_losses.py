# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy and its gradient against the formula in float64."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.losses import CrossEntropy

pytestmark = pytest.mark.usefixtures("graph_mode")


def _log_softmax(logits) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _oracle(logits, targets) -> tuple[float, np.ndarray]:
    """Loss and gradient for soft targets, one image after the other."""
    log_probabilities = _log_softmax(logits)
    loss = np.mean([-(t * p).sum() for t, p in zip(targets, log_probabilities)])
    return loss, (np.exp(log_probabilities) - targets) / len(targets)


def _ours(logits, targets) -> tuple[np.ndarray, np.ndarray]:
    loss, gradient = ms.value_and_grad(CrossEntropy())(ms.Tensor(logits), ms.Tensor(targets))
    assert loss.dtype == ms.float32 and loss.shape == ()
    return loss.asnumpy(), gradient.asnumpy()


@pytest.fixture
def batch():
    """Logits (7, 5), soft targets that sum to 1, and integer labels."""
    rng = np.random.default_rng(0)
    logits = (3 * rng.normal(size=(7, 5))).astype(np.float32)
    soft = rng.dirichlet(np.ones(5), 7).astype(np.float32)
    return logits, soft, rng.integers(0, 5, 7)


def test_soft_targets(batch):
    logits, soft, _ = batch
    loss, gradient = _ours(logits, soft)
    expected_loss, expected_gradient = _oracle(logits, soft)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integer_labels(batch, kind):
    logits, _, labels = batch
    loss, gradient = _ours(logits, labels.astype(kind))
    expected_loss, expected_gradient = _oracle(logits, np.eye(5)[labels])
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-6)


def test_integer_labels_are_one_hot_targets(batch):
    logits, _, labels = batch
    one_hot = np.eye(5, dtype=np.float32)[labels]
    assert _ours(logits, labels.astype(np.int32))[0] == _ours(logits, one_hot)[0]


def test_extreme_logits():
    logits = np.array([[1e4, -1e4, 0], [-3e4, 3e4, 3e4], [88.0, 89.0, 90.0]], np.float32)
    targets = np.eye(3, dtype=np.float32)[[1, 2, 0]]
    loss, gradient = _ours(logits, targets)
    expected_loss, expected_gradient = _oracle(logits, targets)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-6)


def test_float16_logits_are_counted_in_float32():
    rng = np.random.default_rng(1)
    logits = (20 * rng.normal(size=(64, 10))).astype(np.float16)
    targets = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 64)]
    loss, gradient = _ours(logits, targets)
    expected_loss, expected_gradient = _oracle(logits, targets)
    # Float16 itself has steps of 5e-4.
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert gradient.dtype == np.float16
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-7)


def test_equal_logits_cost_the_logarithm_of_the_classes():
    loss, gradient = _ours(np.full((4, 10), 3, np.float32), np.full((4, 10), 0.1, np.float32))
    np.testing.assert_allclose(loss, np.log(10), rtol=3e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_one_class_costs_nothing():
    loss, gradient = _ours(np.ones((3, 1), np.float32), np.zeros(3, np.int32))
    assert loss == 0 and not gradient.any()
