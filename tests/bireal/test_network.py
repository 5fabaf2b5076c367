# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net's parts and options; tests/bireal/test_vectors.py has the official numbers."""

import mindspore as ms
import numpy as np
import pytest

from src.bireal.config import BiRealConfig
from src.bireal.network import BiRealNet
from src.common.errors import UserError
from src.layers.binary import BinaryConv2d
from src.model_utils.device_adapter import without_graph
from src.zoo import create_network

pytestmark = pytest.mark.usefixtures("without_graph")

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
PORT = {"weight_gradient": "scaled_identity", "divide_by_deviation": True, "clip_after_add": True}
TWIN = {"activation": "relu", "binary_weights": False}


def small(**arguments) -> BiRealNet:
    shape = {"block_units": (1, 2, 1, 1), "widths": (4, 8, 8, 12)}
    return create_network("birealnet18", num_classes=5, **shape | arguments)


def logits(network, images=IMAGES) -> np.ndarray:
    return network.set_train(False)(ms.Tensor(images)).asnumpy()


def names_and_shapes(network):
    return {p.name: p.shape for p in network.get_parameters()}


@pytest.mark.parametrize(
    ("name", "count"), [("birealnet18", 11_689_512), ("birealnet34", 21_797_672), ("birealnet50", 25_729_064)]
)
def test_parameter_count(monkeypatch, name, count):
    """The official birealnet50 has 1,024 more, in a convolution that it never calls."""
    monkeypatch.setattr("src.bireal.network.initialise", lambda *_, **__: None)
    assert sum(p.size for p in create_network(name, num_classes=1000).trainable_params()) == count


def test_a_normalised_head_has_a_scale_and_an_offset_for_each_feature():
    counts = [sum(p.size for p in small(head_norm=on).trainable_params()) for on in (False, True)]
    assert counts[1] - counts[0] == 2 * 12


@pytest.mark.parametrize(
    ("binarisation", "bottleneck", "stem"),
    [({}, False, "imagenet"), (TWIN, True, "imagenet"), (PORT, True, "small"), (PORT, False, "small")],
)
def test_shapes_and_features(binarisation, bottleneck, stem):
    network = small(**binarisation, bottleneck=bottleneck, stem=stem, head_norm=True)
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    given = logits(network, images)
    features = network.embed(ms.Tensor(images)).asnumpy()
    assert features.shape == (2, 48 if bottleneck else 12)
    weight, bias = network.fc.weight.asnumpy(), network.fc.bias.asnumpy()
    np.testing.assert_allclose(given, features @ weight.T + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("graph_mode")
def test_a_graph_computes_the_same():
    network = small(**PORT, bottleneck=True, stem="small", head_norm=True)
    in_graph = logits(network)
    with without_graph():
        np.testing.assert_allclose(in_graph, logits(network), rtol=1e-4, atol=1e-5)


def test_equal_widths_shrink_too():
    for bottleneck in (False, True):
        assert logits(small(widths=(8, 8, 8, 8), bottleneck=bottleneck)).shape == (2, 5)


def test_the_twin_has_the_same_parameters():
    assert names_and_shapes(small()) == names_and_shapes(small(**TWIN))
    assert names_and_shapes(small()) == names_and_shapes(small(**PORT))


def test_nothing_comes_behind_the_addition():
    """With all normalisations at scale 0 a block is its shortcut, whatever the size of what passes."""
    network = small(block_units=(3, 1, 1, 1))
    block = network.layer1[1].set_train(False)
    block.bn1.gamma.set_data(ms.Tensor(np.zeros(4, np.float32)))
    x = 10 * np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    assert (block(ms.Tensor(x)).asnumpy() == x).all()
    port = small(block_units=(3, 1, 1, 1), **PORT).layer1[1].set_train(False)
    port.bn1.gamma.set_data(ms.Tensor(np.zeros(4, np.float32)))
    assert (port(ms.Tensor(x)).asnumpy() == np.clip(x, -1, 1)).all()


def test_binary_weights_start_small_and_positive_others_as_a_resnets():
    network = small()
    for name, cell in network.cells_and_names():
        if isinstance(cell, BinaryConv2d):
            weight = cell.weight.asnumpy()
            assert weight.min() >= 0 and 5e-4 < weight.max() < 1e-3, name
    stem = network.conv1.weight.asnumpy()
    assert stem.min() < 0 and np.abs(stem).max() <= 1 / np.sqrt(3 * 49)
    twin = small(**TWIN).layer1[0].binary_conv.weight.asnumpy()
    assert twin.min() < -0.1
    again, other = small(seed=0), small(seed=1)
    assert (again.conv1.weight.asnumpy() == stem).all()
    assert (
        other.layer1[0].binary_conv.weight.asnumpy() != network.layer1[0].binary_conv.weight.asnumpy()
    ).any()


def test_the_published_structures():
    assert {name: tuple(keys.values()) for name, keys in BiRealConfig.VARIANTS.items()} == {
        "birealnet18": ((4, 4, 4, 4), False),
        "birealnet34": ((6, 8, 12, 6), False),
        "birealnet50": ((3, 4, 6, 3), True),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_units": (1, 2)}, "block_units: .1, 2. given, allowed: a list of 4 whole numbers > 0"),
        ({"widths": (1, 2, 3, 0)}, "widths: 0 .entry 4. given"),
        ({"stem": "tiny"}, "stem: 'tiny' given, allowed: one of imagenet, small"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        small(**arguments)
