# SPDX-License-Identifier: Apache-2.0
"""Costs of networks against hand counts, and against a slower way to count what is kept."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.analysis.cost import measure
from src.common.errors import UserError
from src.layers.conv import conv2d, dense
from src.layers.norm import batch_norm2d
from src.training.precision import set_precision
from src.zoo import create_network

pytestmark = pytest.mark.usefixtures("graph_mode")

FLOAT = 4


class Tiny(nn.Cell):
    """Convolution, ReLU, convolution in two groups, dense layer, for 8 x 8 images."""

    def __init__(self):
        super().__init__()
        self.first = conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=2, bias=True)
        self.act = nn.ReLU()
        self.grouped = nn.Conv2d(4, 6, 3, pad_mode="pad", padding=1, group=2, has_bias=False)
        self.head = dense(in_channels=6 * 4 * 4, out_channels=5)

    def construct(self, x):
        x = self.grouped(self.act(self.first(x)))
        return self.head(x.reshape(x.shape[0], -1))


class Twice(nn.Cell):
    """One convolution, used two times."""

    def __init__(self):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=3, kernel_size=1)

    def construct(self, x):
        return self.conv(self.conv(x))


class Normalised(nn.Cell):
    """Convolution, batch normalisation, ReLU, convolution."""

    def __init__(self):
        super().__init__()
        self.first = conv2d(in_channels=3, out_channels=4, kernel_size=1)
        self.bn = batch_norm2d(channels=4)
        self.second = conv2d(in_channels=4, out_channels=2, kernel_size=1)

    def construct(self, x):
        return self.second(ops.relu(self.bn(self.first(x))))


class Binary(nn.Cell):
    """A stem, then 3x3 convolutions of 1-bit weights: one with a 1-bit input, used twice, and one without."""

    def __init__(self):
        super().__init__()
        self.stem = conv2d(in_channels=3, out_channels=4, kernel_size=1)
        self.both = conv2d(in_channels=4, out_channels=4, kernel_size=3, bias=True)
        self.weight_only = conv2d(in_channels=4, out_channels=6, kernel_size=3, stride=2)
        self.both.weight_bits = self.both.input_bits = self.weight_only.weight_bits = 1

    def construct(self, x):
        return self.weight_only(self.both(self.both(self.stem(x))))


def _small_bit(**arguments) -> nn.Cell:
    keys = {"block_units": (2, 1, 1, 2), "width_factor": 0.5, "pretrained_head": "replace"}
    return create_network("bit_r50x1", num_classes=3, **keys, **arguments)


def _small_resnet9() -> nn.Cell:
    return create_network("resnet9", num_classes=3, widths=(2, 3, 4, 5))


def test_a_network_counted_by_hand():
    cells = {cell.name: cell for cell in measure(Tiny(), image_size=8).cells}
    assert list(cells) == ["", "first", "act", "grouped", "head"]
    shapes = {name: cell.output_shape for name, cell in cells.items()}
    assert shapes == {
        "": (5,),
        "first": (4, 4, 4),
        "act": (4, 4, 4),
        "grouped": (6, 4, 4),
        "head": (5,),
    }
    parameters = [cell.parameters for cell in cells.values()]
    assert parameters == [0, 4 * 3 * 9 + 4, 0, 6 * 2 * 9, 5 * 96 + 5]
    multiply_adds = [cell.multiply_adds for cell in cells.values()]
    assert multiply_adds == [0, 16 * 4 * 3 * 9, 0, 16 * 6 * 2 * 9, 5 * 96]


def test_each_call_counts_and_each_parameter_once():
    network = measure(Twice(), image_size=5).cells[1]
    assert (network.parameters, network.multiply_adds) == (9, 2 * 25 * 9)


def test_1bit_weights_and_1bit_multiply_adds():
    """A bias stays a float; a multiply-add is 1-bit where weight and input are."""
    stem, both, weight_only = measure(Binary(), image_size=8).cells[1:]
    assert (stem.parameters_1bit, stem.multiply_adds_1bit) == (0, 0)
    assert (both.parameters, both.parameters_1bit) == (4 * 4 * 9 + 4, 4 * 4 * 9)
    assert both.multiply_adds == both.multiply_adds_1bit == 2 * 64 * 4 * 4 * 9
    assert weight_only.parameters == weight_only.parameters_1bit == 6 * 4 * 9
    assert (weight_only.multiply_adds, weight_only.multiply_adds_1bit) == (16 * 6 * 4 * 9, 0)


def test_what_is_kept_counted_by_hand():
    """ReLU's output, which is the next convolution's input too, and the dense layer's input."""
    kept = measure(Tiny(), image_size=8).kept
    assert (kept.image, kept.batch) == (FLOAT * (4 * 4 * 4 + 6 * 4 * 4), 0)
    assert kept.of(10) == 10 * kept.image


def test_running_statistics_are_no_parameters_and_a_normalisation_keeps_its_input():
    cost = measure(Normalised(), image_size=8)
    assert {cell.name: cell.parameters for cell in cost.cells}["bn"] == 8
    # Its input and ReLU's output; for the batch its mean and variance, of 4 channels each.
    assert cost.kept.image == FLOAT * 2 * 4 * 64
    assert 0 < cost.kept.batch <= FLOAT * 4 * 4


def test_float16_is_kept_as_float16_and_the_weights_as_copies():
    kept = measure(set_precision(Tiny(), "O2"), image_size=8).kept
    image, weights = 3 * 8 * 8, 4 * 3 * 9 + 6 * 2 * 9 + 5 * 96
    assert kept.image == 2 * (image + 4 * 4 * 4 + 6 * 4 * 4)
    assert kept.batch == pytest.approx(2 * weights, abs=2 * (4 + 5))


def _kept_in_a_batch(network: nn.Cell, images: int, side: int) -> int:
    """Bytes that a whole backward pass of a batch fetches or could, all held until its end."""
    batch = ms.Tensor(np.zeros((images, 3, side, side), np.float32))
    known = {tensor.data_ptr() for tensor in (batch, *network.get_parameters())}
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return len(saved) - 1

    def forward(x):
        with ms.saved_tensors_hooks(pack, lambda number: saved[number]):
            features = network(x)
        return features.sum()

    network.set_train(True)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.value_and_grad(forward, None, weights=network.trainable_params())(batch)[0].asnumpy()
    return sum({t.data_ptr(): t.nbytes for t in saved if t.data_ptr() not in known}.values())


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "card"])
@pytest.mark.parametrize("make", [_small_bit, _small_resnet9])
def test_what_is_kept_grows_with_the_batch_as_the_framework_says(make, on_cpu):
    network = make()
    for _, cell in network.cells_and_names():
        if hasattr(cell, "on_cpu"):
            cell.on_cpu = on_cpu
    kept = measure(network, image_size=32).kept
    for images in (1, 5):
        oracle = _kept_in_a_batch(network, images, 32)
        assert kept.of(images) == pytest.approx(oracle, rel=0.01)


def test_of_recomputed_cells_the_input_is_kept_and_the_largest_inside():
    plain, recomputing = (measure(_small_bit(recompute=on), image_size=32) for on in (False, True))
    assert (plain.cells, plain.recomputed) == (recomputing.cells, {})
    names = [
        "block1.unit01",
        "block1.unit02",
        "block2.unit01",
        "block3.unit01",
        "block4.unit01",
        "block4.unit02",
    ]
    assert list(recomputing.recomputed) == [f"body.{name}" for name in names]
    inside = list(recomputing.recomputed.values())
    # Together they are what is kept without recomputation: nothing is lost, nothing counted twice.
    assert recomputing.kept.image + sum(kept.image for kept in inside) == plain.kept.image
    assert recomputing.kept.batch + sum(kept.batch for kept in inside) == plain.kept.batch
    # The inputs of the units: 8 x 8, twice, then 8 x 8, 4 x 4, 2 x 2 and 1 x 1 ...
    inputs = FLOAT * (32 * 64 + 128 * 64 + 128 * 64 + 256 * 16 + 512 * 4 + 1024)
    assert recomputing.kept.image > inputs
    for images in (1, 7, 1000):
        largest = max(kept.batch + images * kept.image for kept in inside)
        expected = recomputing.kept.batch + images * recomputing.kept.image + largest
        assert recomputing.activations(images) == expected < plain.activations(images)


def test_the_known_figures_of_resnet9():
    cost = measure(create_network("resnet9", num_classes=10), image_size=32)
    assert sum(cell.parameters for cell in cost.cells) == 6_573_120
    assert sum(cell.multiply_adds for cell in cost.cells) == 379_261_952


def _resnet50(side: int) -> int:
    """Multiply-adds of the convolutions of a ResNetV2-50 with 10 classes, stage by stage."""
    side //= 2
    total = side**2 * 64 * 3 * 49
    side //= 2
    channels = 64
    for stage, units in enumerate((3, 4, 6, 3)):
        middle, out = 64 << stage, 256 << stage
        for unit in range(units):
            stride = 2 if unit == 0 and stage else 1
            total += side**2 * channels * middle
            side //= stride
            total += side**2 * (middle * middle * 9 + middle * out)
            total += side**2 * channels * out if unit == 0 else 0
            channels = out
    return total + channels * 10


def test_the_known_figures_of_a_resnet50():
    assert 4.0e9 < _resnet50(224) < 4.2e9
    cost = measure(create_network("bit_r50x1", num_classes=10), image_size=64)
    assert sum(cell.parameters for cell in cost.cells) == 23_520_842
    assert sum(cell.multiply_adds for cell in cost.cells) == _resnet50(64)


def test_an_image_that_the_network_does_not_take():
    network = Tiny()
    with pytest.raises(UserError, match=r"^image_size: the network does not take 16 pixels: [^\n]+$"):
        measure(network, image_size=16)
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_nothing_is_left_behind():
    network = Twice()
    first = measure(network, image_size=5)
    before = [cell.multiply_adds for cell in first.cells]
    measure(network, image_size=5)  # a hook that is still there would count for the first one
    assert [cell.multiply_adds for cell in first.cells] == before
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_ghost_batches_cost_what_whole_ones_do():
    """Old behaviour: the one image of the measurement was refused, as it fills no ghost batch."""
    narrow = {"num_classes": 3, "widths": (2, 3, 4, 5)}
    plain, ghost = (
        [
            cell.multiply_adds
            for cell in measure(create_network("resnet9", ghost_batch=n, **narrow), image_size=32).cells
        ]
        for n in (0, 32)
    )
    assert sum(ghost) == sum(plain) > 0
