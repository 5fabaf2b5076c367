# SPDX-License-Identifier: Apache-2.0
"""Whitening against scikit-learn and the official numbers; folded, it leaves the class scores alone."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from sklearn.decomposition import PCA

from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.multigrain.whitening import fit_pca, fold, whitened_weights
from src.zoo import create_network

VECTORS = Path(__file__).parents[1] / "vectors" / "multigrain.npz"


def _correlated(count, dims, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) + rng.normal(size=dims)


def _whiten(whitening, embeddings):
    return (embeddings - whitening.mean) @ whitening.projection


def test_it_is_the_whitening_of_scikit_learn_with_fixed_signs():
    x = _correlated(60, 7)
    theirs, ours = PCA(whiten=True).fit(x), fit_pca(x)
    z = _whiten(ours, x)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-14)
    np.testing.assert_allclose(np.abs(z), np.abs(theirs.transform(x)), atol=1e-10)
    np.testing.assert_allclose(np.cov(z, rowvar=False), np.eye(7), atol=1e-10)
    largest = np.abs(ours.projection).argmax(axis=0)
    assert (ours.projection[largest, range(7)] > 0).all()
    np.testing.assert_allclose(fit_pca(x[::-1]).projection, ours.projection, atol=1e-9)


def test_the_official_fold():
    vectors = np.load(VECTORS)
    x, classifier = vectors["whiten_input"], vectors["classifier"]
    whitening = fit_pca(x)
    weight, bias = fold(whitening, classifier)
    rows = x[: vectors["whiten_scores_input_rows"]]
    scores = _whiten(whitening, rows) @ weight.T + bias
    np.testing.assert_allclose(rows @ classifier.T, vectors["classifier_scores_unwhitened"], atol=1e-14)
    np.testing.assert_allclose(scores, vectors["classifier_scores_folded"], atol=1e-12)


@pytest.mark.parametrize("count", [2, 5, 8, 40])
def test_regularised_it_keeps_the_scores_for_any_number_of_images(count):
    x = _correlated(40, 7)
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(3, 6)), rng.normal(size=3)
    x[:, -1] = 1
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    whitening = fit_pca(v[:count], regularisation=0.01)
    folded_weight, folded_bias = fold(whitening, weight, bias)
    scores = (x[:, :-1] @ weight.T + bias) / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(_whiten(whitening, v) @ folded_weight.T + folded_bias, scores, atol=1e-12)


def test_regularisation_adds_a_share_of_the_mean_variance():
    x = _correlated(50, 4)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x, rowvar=False)))[::-1]
    whitened = np.cov(_whiten(fit_pca(x, regularisation=0.5), x), rowvar=False)
    np.testing.assert_allclose(
        whitened, np.diag(variances / (variances + 0.5 * variances.mean())), atol=1e-10
    )


def test_too_few_images_or_directions_are_one_clear_error():
    x = _correlated(40, 7).astype(np.float32)
    fit_pca(x[:8])
    with pytest.raises(UserError, match=r"7 images vary in 6 of 7 .*--regularisation 0.01, or 8 different"):
        fit_pca(x[:7])
    with pytest.raises(UserError, match=r"1 given, allowed: 8 or more; 2 with --regularisation"):
        fit_pca(x[:1], regularisation=0.1)
    with pytest.raises(UserError, match="all of them have the same embedding"):
        fit_pca(np.repeat(x[:1], 9, axis=0), regularisation=0.1)
    with pytest.raises(UserError, match="NaN or infinity"):
        fit_pca(np.where(x > 1, np.nan, x))


def test_a_dead_channel_is_found_under_the_rounding_of_float32():
    """GeM gives 1e-6 for a channel that is never positive: after the norm, a multiple of the appended 1."""
    x = np.abs(_correlated(40, 7)).astype(np.float32)
    x[:, 2], x[:, -1] = 1e-6, 1
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    with pytest.raises(UserError, match="vary in 6 of 7"):
        fit_pca(v)
    z = _whiten(fit_pca(v, regularisation=0.01), v)
    assert np.abs(z).max() < 100


def test_a_whitened_network_gives_the_logits_of_the_plain_one(graph_mode):
    shape = {"num_classes": 5, "widths": (4, 8, 8, 16), "block_units": (1, 1, 1, 1), "stem": "small"}
    plain = create_network("multigrain_resnet18", **shape).set_train(False)
    whitened = create_network("multigrain_resnet18", **shape, whitening_dim=17, seed=1)
    x = ms.Tensor(np.random.default_rng(0).normal(size=(40, 3, 32, 32)).astype(np.float32))
    embedding = plain.embed(x).asnumpy().astype(np.float64)
    v = np.concatenate([embedding, np.ones((40, 1))], axis=1)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    arrays = {p.name: p.asnumpy() for p in plain.get_parameters()}
    whitening = fit_pca(v, regularisation=1e-4)
    load_weights(whitened, whitened_weights(arrays, whitening))
    whitened.set_train(False)
    logits = plain(x).asnumpy()
    assert np.ptp(logits, axis=0).min() > 1e-2
    np.testing.assert_allclose(whitened(x).asnumpy(), logits, atol=1e-4 * np.abs(logits).max())
    np.testing.assert_allclose(whitened.embed(x).asnumpy(), _whiten(whitening, v), atol=1e-3)
