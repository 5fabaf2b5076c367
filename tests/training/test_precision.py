# SPDX-License-Identifier: Apache-2.0
"""Read off the built and compiled network: which cells compute in float16, and which stay in float32."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.conv import conv2d, dense
from src.layers.losses import CrossEntropy
from src.layers.norm import batch_norm2d
from src.training.precision import keeps_float32, set_precision
from src.zoo import create_network

NAMES = {16: ms.float16, 32: ms.float32}


class Probe(nn.Cell):
    """Passes on what a cell gives, and notes in a parameter how many bits it has: 16 or 32."""

    def __init__(self, cell):
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.bits = ms.Parameter(ms.Tensor(0, ms.int32), name="bits", requires_grad=False)

    def construct(self, x):
        y = self.cell(x)
        if y.dtype == ms.float16:
            ops.assign(self.bits, 16)
        elif y.dtype == ms.float32:
            ops.assign(self.bits, 32)
        return y


def probe(network, *paths):
    """Puts a probe around each cell that a path names; after `set_precision`, which would cast its input."""
    probes = {}
    for path in paths:
        *parents, last = path.split(".")
        holder = network
        for name in parents:
            holder = getattr(holder, name)
        probes[path] = Probe(getattr(holder, last))
        setattr(holder, last, probes[path])
        if isinstance(holder, nn.SequentialCell):  # which calls those of a list
            holder.cell_list = list(holder.name_cells().values())
        probes[path].bits.name = f"{path}.bits"
    return probes


def bits_of(probes):
    return {path: int(p.bits.asnumpy()) for path, p in probes.items()}


# prep, a block with pooling, and the last one
RESNET9_BITS = {
    "O0": {
        "prep.conv": 32, "prep.bn": 32, "prep.act": 32,
        "layer1.conv": 32, "layer1.bn": 32, "layer1.pool": 32, "layer1.act": 32,
        "layer3_res2.conv": 32, "layer3_res2.bn": 32, "linear": 32,
    },
    "O2": {
        "prep.conv": 16, "prep.bn": 32, "prep.act": 16,
        "layer1.conv": 16, "layer1.bn": 32, "layer1.pool": 16, "layer1.act": 16,
        "layer3_res2.conv": 16, "layer3_res2.bn": 32, "linear": 16,
    },
    "auto": {
        "prep.conv": 16, "prep.bn": 32, "prep.act": 32,
        "layer1.conv": 16, "layer1.bn": 32, "layer1.pool": 32, "layer1.act": 32,
        "layer3_res2.conv": 16, "layer3_res2.bn": 32, "linear": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("level", ["O0", "O2", "auto"])
@pytest.mark.parametrize("training", [True, False])
def test_resnet9(graph_mode, level, training):
    network = create_network("resnet9", num_classes=4, widths=(4, 4, 8, 8))
    called = set_precision(network, level)
    probes = probe(network, *RESNET9_BITS[level])
    called.set_train(training)
    logits = called(ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)))
    assert bits_of(probes) == RESNET9_BITS[level]
    assert logits.dtype == NAMES[RESNET9_BITS[level]["linear"]]
    assert np.isfinite(logits.asnumpy()).all()
    assert {p.dtype for p in network.get_parameters()} == {ms.float32, ms.int32}  # int32: the probes


class Squares(nn.Cell):
    """Sums of squares that float16 cannot hold."""

    keep_float32 = True

    def construct(self, x):
        return (x * x).sum(axis=-1)


class PlainSquares(nn.Cell):
    """The same without a mark."""

    def construct(self, x):
        return (x * x).sum(axis=-1)


class Mixed(nn.Cell):
    """Every kind of cell that keeps float32 behind one that does not: (N, 4, H, W) -> (N,)."""

    def __init__(self):
        super().__init__()
        self.conv = conv2d(in_channels=4, out_channels=4, kernel_size=1)
        self.group_norm = nn.GroupNorm(2, 4)
        self.batch_norm = batch_norm2d(channels=4)
        self.squares = Squares()
        self.plain_squares = PlainSquares()
        self.inner = nn.SequentialCell(nn.GroupNorm(1, 4))

    def construct(self, x):
        x = self.conv(x)
        x = self.inner(self.conv(self.batch_norm(self.conv(self.group_norm(x)))))
        x = self.conv(x).mean((2, 3))
        return self.squares(x), self.plain_squares(x)


@pytest.fixture
def mixed(graph_mode):
    network = Mixed()
    network.conv.weight.set_data(ms.Tensor(np.eye(4, dtype=np.float32)[:, :, None, None]))
    return network


def test_o2_leaves_normalisations_and_marked_cells_in_float32(mixed):
    set_precision(mixed, "O2")
    probes = probe(mixed, "conv", "group_norm", "batch_norm", "squares", "plain_squares", "inner")
    mixed(ms.Tensor(np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)))
    assert bits_of(probes) == {
        "conv": 16, "group_norm": 32, "batch_norm": 32, "squares": 32, "plain_squares": 16, "inner": 32,
    }  # fmt: skip


def test_which_cells_keep_float32():
    class Marked(nn.Cell):
        keep_float32 = True

    norms = (nn.GroupNorm(1, 2), nn.LayerNorm((2,)), nn.BatchNorm1d(2), batch_norm2d(channels=2))
    assert all(map(keeps_float32, (*norms, Marked())))
    others = (nn.ReLU(), nn.SequentialCell(nn.GroupNorm(1, 2)), dense(in_channels=2, out_channels=2))
    assert not any(map(keeps_float32, others))


def test_a_marked_cell_computes_what_float16_cannot_hold(graph_mode):
    x = ms.Tensor(np.full((1, 2), 300.0, np.float32))
    kept = set_precision(nn.SequentialCell(Squares()), "O2")(x)
    rounded = set_precision(nn.SequentialCell(PlainSquares()), "O2")(x)
    assert kept.asnumpy() == [180000.0]
    assert np.isinf(rounded.asnumpy()).all()


class Product(nn.Cell):
    """x W, which both levels would compute in float16."""

    keep_float32 = True

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(np.ones((1, 1), np.float32), name="weight")

    def construct(self, x):
        return ops.matmul(x, self.weight)


@pytest.mark.parametrize("level", ["O2", "auto"])
def test_a_marked_cell_multiplies_in_float32(graph_mode, level):
    weight = np.full((1, 1), 1 + 2**-12, np.float32)
    network = nn.SequentialCell(dense(in_channels=1, out_channels=1, bias=False), Product())
    network[0].weight.set_data(ms.Tensor(np.ones((1, 1), np.float32)))
    network[1].weight.set_data(ms.Tensor(weight))
    y = set_precision(network, level)(ms.Tensor(np.ones((1, 1), np.float32)))
    assert y.dtype == ms.float32
    np.testing.assert_array_equal(y.asnumpy(), weight)


@pytest.mark.parametrize(("level", "bits"), [("O0", 32), ("O2", 16), ("auto", 16)])
def test_convolution_and_dense_layer_round_as_their_precision_does(graph_mode, level, bits):
    """1 + 2^-12 is a float32 number between two float16 numbers; a kernel of ones passes it on."""
    x = np.float32(1 + 2**-12)
    conv = conv2d(in_channels=1, out_channels=1, kernel_size=1)
    linear = dense(in_channels=1, out_channels=1, bias=False)
    for cell, image in ((conv, np.full((1, 1, 2, 2), x)), (linear, np.full((1, 1), x))):
        cell.weight.set_data(ms.Tensor(np.ones(cell.weight.shape, np.float32)))
        y = set_precision(cell, level)(ms.Tensor(image))
        assert y.dtype == NAMES[bits]
        np.testing.assert_array_equal(y.asnumpy(), np.full(y.shape, x if bits == 32 else 1))


@pytest.mark.parametrize("level", ["O2", "auto"])
def test_gradients_of_float16_cells_are_float32(graph_mode, level):
    network = create_network("resnet9", num_classes=4, widths=(2, 2, 2, 2))
    called = set_precision(network, level).set_train(True)
    loss = CrossEntropy()

    def forward(x, targets):
        return loss(called(x), targets)

    gradient = ms.value_and_grad(forward, None, weights=network.trainable_params())
    x = ms.Tensor(np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32))
    value, gradients = gradient(x, ms.Tensor(np.array([1, 3], np.int32)))
    assert value.dtype == ms.float32
    assert [g.dtype for g in gradients] == [ms.float32] * len(network.trainable_params())


def test_set_precision_returns_the_network_itself_and_keeps_its_names(graph_mode):
    names = [p.name for p in create_network("resnet9", num_classes=4, widths=(2, 2, 2, 2)).get_parameters()]
    for level in ("O0", "O2", "auto"):
        network = create_network("resnet9", num_classes=4, widths=(2, 2, 2, 2))
        assert set_precision(network, level) is network
        assert [p.name for p in network.get_parameters()] == names


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match=r"'O1'.*O0, O2, auto"):
        set_precision(nn.ReLU(), "O1")
