# SPDX-License-Identifier: Apache-2.0
"""Maximum pooling is the plain operator to the bit, and evaluation holds that operator itself."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers.pooling import MaxPool2d, ZeroPaddedMaxPool2d

pytestmark = pytest.mark.usefixtures("graph_mode")


class _Both(nn.Cell):
    """sum(ours(x) weights) + sum(plain(y) weights): one graph has the values and the gradients of both."""

    def __init__(self, kernel_size, *, relu):
        super().__init__()
        self.ours = MaxPool2d(kernel_size)
        self.plain = nn.MaxPool2d(kernel_size=kernel_size, stride=kernel_size, pad_mode="valid")
        self.before = nn.ReLU() if relu else nn.Identity()

    def construct(self, x, y, weights):
        ours, plain = self.ours(self.before(x)), self.plain(self.before(y))
        return (ours * weights).sum() + (plain * weights).sum(), ours, plain


def _windows(x, k) -> np.ndarray:
    """(N, C, H // k, W // k): the maximum of each window by loops."""
    out = np.empty((*x.shape[:2], x.shape[2] // k, x.shape[3] // k), x.dtype)
    for i, j in np.ndindex(out.shape[2:]):
        out[:, :, i, j] = x[:, :, i * k : i * k + k, j * k : j * k + k].max(axis=(2, 3))
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("size", "k", "values", "relu"),
    [
        ((8, 8), 2, "continuous", False),
        ((8, 8), 2, "continuous", True),
        ((8, 4), 4, "ties", False),
        ((4, 4), 4, "continuous", False),
        ((7, 6), 2, "ties", True),
        ((7, 8), 3, "ties", False),
    ],
)
def test_value_and_gradient_are_those_of_the_plain_operator(size, k, values, relu, training):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, *size)).astype(np.float32)
    if values == "ties":
        x = np.round(x)
    weights = rng.normal(size=(3, 2, size[0] // k, size[1] // k)).astype(np.float32)
    both = _Both(k, relu=relu)
    both.set_train(training)
    gradient = ms.value_and_grad(both, (0, 1), has_aux=True)
    (_, ours, plain), (d_ours, d_plain) = gradient(ms.Tensor(x), ms.Tensor(x), ms.Tensor(weights))
    assert (ours.asnumpy() == _windows(np.maximum(x, 0) if relu else x, k)).all()
    assert (ours.asnumpy() == plain.asnumpy()).all()
    assert d_ours.asnumpy().any()
    assert (d_ours.asnumpy() == d_plain.asnumpy()).all()


def _operators(pool, size, path) -> set[str]:
    """The pooling operators of the exported graph."""
    images = ms.Tensor(np.zeros((1, 2, *size), np.float32))
    ms.export(pool, images, file_name=str(path / "pool"), file_format="MINDIR")
    names = re.findall(rb"(?:Adaptive)?(?:Max|Avg)Pool\w*", (path / "pool.mindir").read_bytes())
    return {name.decode() for name in names if not name.startswith(b"MaxPool2d")}  # cells, not operators


@pytest.mark.parametrize("size", [(8, 8), (7, 8)])
def test_evaluation_holds_the_plain_operator(tmp_path, size):
    pool = MaxPool2d(2)
    pool.set_train(False)
    assert _operators(pool, size, tmp_path) == {"MaxPool"}


def test_other_devices_train_with_the_plain_operator(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ms, "get_context", lambda key: "Ascend")
        pool = MaxPool2d(2)
    pool.set_train(True)
    assert _operators(pool, (8, 8), tmp_path) == {"MaxPool"}


def test_windows_do_not_overlap_and_the_rest_is_dropped():
    pool = MaxPool2d(2)
    pool.set_train(False)
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 4, 4] = x[0, 0, 1, 2] = 9
    assert pool(ms.Tensor(x)).asnumpy().tolist() == [[[[0, 9], [0, 0]]]]


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (6, 7)])
def test_the_padded_pool_counts_zeros_around_the_image(size):
    x = np.random.default_rng(1).normal(-1, 1, (2, 3, *size)).astype(np.float32)  # zeros win at the border
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = ((side - 1) // 2 + 1 for side in size)
    expected = np.empty((2, 3, rows, columns), np.float32)
    gradient = np.zeros_like(padded)
    dy = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    for n, c, i, j in np.ndindex(expected.shape):
        window = padded[n, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[n, c, i, j] = window.max()
        row, column = np.unravel_index(window.argmax(), window.shape)
        gradient[n, c, 2 * i + row, 2 * j + column] += dy[n, c, i, j]
    pool = ZeroPaddedMaxPool2d()

    def forward(images, d):
        out = pool(images)
        return (out * d).sum(), out

    (_, out), dx = ms.value_and_grad(forward, 0, has_aux=True)(ms.Tensor(x), ms.Tensor(dy))
    np.testing.assert_array_equal(out.asnumpy(), expected)
    np.testing.assert_allclose(dx.asnumpy(), gradient[:, :, 1:-1, 1:-1], atol=1e-6)
