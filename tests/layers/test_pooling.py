"""The fast maximum pooling is the plain one, to the bit, and evaluation holds the plain one."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.pooling import MaxPool2d

pytestmark = pytest.mark.usefixtures("graph_mode")


class _Both(nn.Cell):
    """sum(ours(x) weights) + sum(plain(y) weights): one graph has the values and the gradients of both."""

    def __init__(self, kernel_size, *, relu):
        super().__init__()
        self.ours = MaxPool2d(kernel_size)
        self.plain = nn.MaxPool2d(kernel_size=kernel_size, stride=kernel_size)
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


def _exported(pool, size, tmp_path) -> bytes:
    ms.export(pool, ms.Tensor(np.zeros((1, 2, *size), np.float32)), file_name=str(tmp_path / "pool"),
              file_format="MINDIR")  # fmt: skip
    return (tmp_path / "pool.mindir").read_bytes()


@pytest.mark.parametrize(
    ("training", "size", "adaptive"),
    [(False, (8, 8), False), (True, (8, 8), True), (True, (7, 8), False)],
)
def test_only_training_on_a_cpu_takes_the_fast_operator(tmp_path, training, size, adaptive):
    pool = MaxPool2d(2)
    pool.set_train(training)
    graph = _exported(pool, size, tmp_path)
    assert (b"AdaptiveMaxPool2D" in graph) == adaptive
    assert (b"Primitive::MaxPool" in graph or b"MaxPool:" in graph) != adaptive


def test_other_devices_always_take_the_plain_operator(tmp_path, monkeypatch):
    monkeypatch.setattr(ms, "get_context", lambda key: "Ascend")
    pool = MaxPool2d(2)
    monkeypatch.undo()
    pool.set_train(True)
    assert b"AdaptiveMaxPool2D" not in _exported(pool, (8, 8), tmp_path)


def test_windows_do_not_overlap_and_the_rest_is_dropped():
    pool = MaxPool2d(2)
    pool.set_train(False)
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 4, 4] = x[0, 0, 1, 2] = 9
    assert pool(ms.Tensor(x)).asnumpy().tolist() == [[[[0, 9], [0, 0]]]]
    assert ops.shape(pool(ms.Tensor(x))) == (1, 1, 2, 2)
