# SPDX-License-Identifier: Apache-2.0
"""Input whitening: second moments of its channels in float64, and the layer that gets them."""

import mindspore as ms
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from src.layers.init import initialise, torch_default
from src.layers.input_whitening import FORMS, whiten, whitening_conv, whitening_filters

pytestmark = pytest.mark.usefixtures("without_graph")


def pictures(count=30, side=16) -> np.ndarray:
    """(count, 3, side, side) float32: neighbours and channels hang together, and no mean is 0."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(count, 3, side + 4, side + 4)) + rng.normal(size=(count, 1, side + 4, side + 4))
    return (sliding_window_view(rough, (5, 5), (2, 3)).mean((4, 5)) + 0.4).astype(np.float32)


def patches(images, side) -> np.ndarray:
    """(n, 3 * side * side) float64."""
    windows = sliding_window_view(images.astype(np.float64), (side, side), (2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 3 * side * side)


@pytest.mark.parametrize("side", [2, 3])
def test_whitened_patches_have_the_identity_as_second_moments(side):
    images = pictures()
    filters = whitening_filters(images, side=side, eps=0)
    rows = patches(images, side)
    whitened = rows @ filters.reshape(len(filters), -1).T
    np.testing.assert_allclose(whitened.T @ whitened / len(rows), np.eye(3 * side * side), atol=1e-9)
    assert np.linalg.cond(rows.T @ rows) > 100  # it was not so before


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_damps_what_hardly_varies(form):
    """s / (s + eps) is left of a second moment s; the largest s comes first."""
    images, f = pictures(), FORMS[form]
    conv = whitening_conv(form)
    initialise(conv, seed=0, weight=torch_default)
    whiten(conv, images, eps=f.eps)
    maps = conv(ms.Tensor(images)).asnumpy().astype(np.float64)
    side, border = images.shape[2] + 2 * f.padding - f.kernel_size + 1, f.padding
    assert maps.shape == (len(images), f.channels, side, side)
    whitened = maps[:, :, border : side - border, border : side - border]
    whitened = whitened.transpose(0, 2, 3, 1).reshape(-1, f.channels)
    rows = patches(images, f.kernel_size)
    moments = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1]
    first = whitened[:, : len(moments)]
    expected = np.diag(moments / (moments + f.eps))
    np.testing.assert_allclose(first.T @ first / len(rows), expected, rtol=0, atol=2e-5)
    weight = conv.weight.asnumpy().reshape(f.channels, -1)
    np.testing.assert_array_equal(weight[len(moments) :], -weight[: f.channels - len(moments)])
    assert (weight.max(axis=1) == np.abs(weight).max(axis=1))[: len(moments)].all()


def test_only_the_bias_is_trained():
    names = {form: [p.name for p in whitening_conv(form).trainable_params()] for form in FORMS}
    assert names == {"dawnbench": [], "airbench": ["bias"]}
    assert not whitening_conv("airbench").bias.asnumpy().any()


def test_images_of_one_colour_give_finite_weights():
    conv = whitening_conv("airbench")
    whiten(conv, np.ones((3, 3, 4, 4), np.float32), eps=5e-4)
    assert np.isfinite(conv.weight.asnumpy()).all()
