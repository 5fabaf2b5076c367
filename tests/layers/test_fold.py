# SPDX-License-Identifier: Apache-2.0
"""Folding against float64 formulas, and every network, whose answers and features it must not change."""

from collections import OrderedDict

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.layers.binary import ApproxSign, BinaryConv2d, ScaledSign
from src.layers.conv import conv2d
from src.layers.fold import fold_layers, fold_norm, fold_scale
from src.layers.inference import Inference
from src.layers.norm import BatchNorm, batch_norm2d
from src.layers.weight_standardization import StdConv2d
from src.zoo import create_network
from tests.layers.test_weight_standardization import convolve

pytestmark = pytest.mark.usefixtures("without_graph")

X = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


def trained(cell: nn.Cell, *, seed: int = 0) -> nn.Cell:
    """With numbers of all signs and sizes in every parameter, as training could leave them."""
    rng = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        leaf = parameter.name.rpartition(".")[2]
        if parameter.ndim > 1 and "whitening" not in parameter.name:
            values = rng.normal(0, (2 / np.prod(parameter.shape[1:])) ** 0.5, parameter.shape)
        elif leaf == "gamma" and parameter.requires_grad:
            values = rng.uniform(0.5, 1.5, parameter.shape) * rng.choice([-1, 1, 1, 1], parameter.shape)
        elif leaf == "moving_variance":
            values = rng.uniform(0.3, 2, parameter.shape)
        elif leaf in ("beta", "moving_mean", "bias"):
            values = rng.normal(0, 0.3, parameter.shape)
        else:
            continue
        parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return cell


def answer(cell: nn.Cell, images: np.ndarray = X) -> np.ndarray:
    return Inference(cell)(ms.Tensor(images)).asnumpy()


def numbers(cell: nn.Cell) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in cell.get_parameters()}


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_becomes_weight_and_bias(kernel_size, stride, bias):
    """Also of channels that hardly vary, that count negatively, or not at all."""
    conv = conv2d(in_channels=4, out_channels=6, kernel_size=kernel_size, stride=stride, bias=bias)
    norm = batch_norm2d(channels=6)
    pair = trained(nn.SequentialCell(OrderedDict(conv=conv, norm=norm)))
    for parameter, value in ((norm.gamma, [-1.5, 0, 2, 1e-3]), (norm.moving_variance, [1e-12, 1, 0, 4])):
        parameter.set_data(ms.Tensor(np.concatenate([value, parameter.asnumpy()[4:]]).astype(np.float32)))
    p = {name: values.astype(np.float64) for name, values in numbers(pair).items()}

    def channels(name):
        return p[name].reshape(1, -1, 1, 1)

    sums = convolve(X, p["conv.weight"], stride, kernel_size // 2, kernel_size // 2)
    sums = sums + channels("conv.bias") if bias else sums
    deviation = np.sqrt(channels("norm.moving_variance") + 1e-5)
    expected = (sums - channels("norm.moving_mean")) / deviation * channels("norm.gamma")
    expected = expected + channels("norm.beta")
    fold_norm(conv, norm)
    largest = np.abs(expected).max(axis=(0, 2, 3), keepdims=True)
    assert (np.abs(answer(conv) - expected) <= 2e-6 * largest).all()
    assert conv.bias.name == "conv.bias"


def test_scales_of_binary_weights_move_and_signs_stay():
    conv = BinaryConv2d(in_channels=4, out_channels=6, kernel_size=3, quantiser=ScaledSign())
    norm = batch_norm2d(channels=6)
    network = trained(nn.SequentialCell(ApproxSign(), conv, norm))
    weight = conv.weight.asnumpy()
    weight[2] = 0  # alpha 0: the convolution gives 0 there
    weight[3, 0, 0, 0] = 0
    conv.weight.set_data(ms.Tensor(weight))
    before = answer(network)
    fold_scale(conv, norm)
    assert set(np.unique(conv.weight.asnumpy())) == {-1, 1}
    assert conv.weight.asnumpy()[3, 0, 0, 0] == 1
    np.testing.assert_allclose(answer(network), before, rtol=1e-5, atol=1e-5)


def test_what_stands_between_stays():
    """A norm with another cell before it, or a network's first, is none of a convolution."""
    conv = conv2d(in_channels=4, out_channels=4, kernel_size=3)
    cells = (batch_norm2d(channels=4), conv, nn.ReLU(), batch_norm2d(channels=4))
    network = trained(nn.SequentialCell(*cells))
    before = answer(network)
    fold_layers(network)
    assert list(network) == list(cells) and (answer(network) == before).all()


WIDE = {"block_units": (1, 2, 1, 1), "widths": (8, 8, 16, 16)}
TWIN = {"binary_weights": False, "activation": "relu"}
PORT = {"weight_gradient": "scaled_identity", "divide_by_deviation": True, "clip_after_add": True}
NINE = {"widths": (4, 8, 8, 12)}
POSITIVE = {"pool_before_norm": True, "norm_scale": "fixed", "norm_eps": 1e-12, "activation": "silu"}
BIT = {"block_units": (1, 1, 1, 1), "width_factor": 0.5}
# Network, its arguments, and how many batch normalisations stay.
NETWORKS = {
    "resnet9": ("resnet9", NINE, 0),
    "resnet9 celu": ("resnet9", NINE | {"activation": "celu", "celu_alpha": 0.3}, 0),
    "resnet9 gelu": ("resnet9", NINE | {"activation": "gelu", "head_scale": 0.3}, 0),
    "resnet9 pool first": ("resnet9", NINE | {"pool_before_norm": True}, 2),  # one has no negative scale
    "resnet9 dawnbench": ("resnet9", NINE | POSITIVE | {"input_whitening": "dawnbench"}, 0),
    "resnet9 airbench": ("resnet9", NINE | POSITIVE | {"input_whitening": "airbench", "ghost_batch": 2}, 0),
    "cifarnet": ("cifarnet", {"widths": (4, 8, 8), "group_convs": 3, "skip_unpooled": True}, 0),
    "resnet20": ("resnet20", {"width_factor": 0.5, "stage_blocks": 1, "activation": "celu"}, 0),
    "vgg11": ("vgg11", {"width_factor": 1 / 16, "input_whitening": "dawnbench"}, 0),
    "bit": ("bit_r50x1", BIT, 0),
    "bit same": ("bit_r50x1", BIT | {"stride_padding": "same"}, 0),
    "bireal": ("birealnet18", WIDE, 5),
    "bireal port": ("birealnet18", WIDE | PORT | {"stem": "small", "head_norm": True}, 6),
    "bireal stage 1": ("birealnet18", WIDE | {"activation": "approx_sign", "binary_weights": False}, 0),
    "bireal twin": ("birealnet18", WIDE | TWIN, 0),
    "bireal bottleneck": ("birealnet50", WIDE, 14),
    "bireal bottleneck twin": ("birealnet50", WIDE | TWIN | {"head_norm": True}, 1),
    "multigrain": ("multigrain_resnet18", WIDE, 0),
    "multigrain bottleneck": ("multigrain_resnet50", WIDE | {"learn_pooling_exponent": True}, 0),
    "multigrain small": ("multigrain_resnet18", WIDE | {"stem": "small", "pooling_exponent": "max"}, 0),
    "multigrain whitened": ("multigrain_resnet50", WIDE | {"whitening_dim": 65}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "stay"), NETWORKS.values(), ids=NETWORKS)
def test_a_folded_network_answers_the_same(name, arguments, stay):
    network = trained(create_network(name, num_classes=5, **arguments))
    images = np.random.default_rng(2).normal(size=(3, 3, 64, 64)).astype(np.float32)

    def answers():
        return answer(network, images), network.embed(ms.Tensor(images)).asnumpy()

    as_trained = answers()
    network.fold()
    for before, after in zip(as_trained, answers(), strict=True):
        assert np.abs(before).max() > 0.1
        assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    cells = [cell for _, cell in network.cells_and_names()]
    assert sum(isinstance(cell, BatchNorm) for cell in cells) == stay
    assert all(cell.folded for cell in cells if isinstance(cell, StdConv2d))
    for cell in cells:
        if isinstance(cell, BinaryConv2d):
            assert set(np.unique(cell.weight.asnumpy())) == {-1, 1}
    folded = numbers(network)
    assert len(folded) == len(list(network.get_parameters()))
    network.fold()
    again = numbers(network)
    assert again.keys() == folded.keys()
    assert all((again[key] == folded[key]).all() for key in folded)
    assert (answer(network, images) == answers()[0]).all()
