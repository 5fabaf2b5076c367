# SPDX-License-Identifier: Apache-2.0
"""ResNetV2's parts and arguments; tests/bit/test_vectors.py has the official numbers."""

import mindspore as ms
import numpy as np
import pytest

from src.bit.network import ResNetV2
from src.common.errors import UserError
from src.layers.weight_standardization import StdConv2d
from src.zoo import create_network

pytestmark = pytest.mark.usefixtures("without_graph")

SMALL = {"block_units": (1, 2, 1, 1), "width_factor": 0.5}
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)


def small(**arguments) -> ResNetV2:
    keys = {**SMALL, "pretrained_head": "replace", **arguments}
    return create_network("bit_r50x1", num_classes=5, **keys)


def logits(network, images=IMAGES) -> np.ndarray:
    network.set_train(False)
    return network(ms.Tensor(images)).asnumpy()


def loss_and_gradients(network) -> tuple[float, dict[str, np.ndarray]]:
    network.set_train(True)
    parameters = network.trainable_params()

    def forward(images):
        return (network(images) ** 2).sum()

    loss, gradients = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters))(ms.Tensor(IMAGES))
    return float(loss.asnumpy()), {p.name: g.asnumpy() for p, g in zip(parameters, gradients)}


def test_shapes_names_and_features():
    network = small()
    names = {p.name: tuple(p.shape) for p in network.get_parameters()}
    assert names["root.conv.weight"] == (32, 3, 7, 7)
    assert names["body.block2.unit01.downsample.weight"] == (256, 128, 1, 1)
    assert names["body.block2.unit02.conv2.weight"] == (64, 64, 3, 3)
    assert "body.block2.unit02.downsample.weight" not in names
    assert names["head.gn.gamma"] == (1024,) and names["head.conv.weight"] == (5, 1024, 1, 1)
    features = network.embed(ms.Tensor(IMAGES)).asnumpy()
    assert features.shape == (2, 1024) and features.min() >= 0
    weight, bias = network.head.conv.weight.asnumpy(), network.head.conv.bias.asnumpy()
    expected = features.astype(np.float64) @ weight.reshape(5, 1024).T + bias
    np.testing.assert_allclose(logits(network), expected, atol=1e-5 * np.abs(expected).max())


def test_the_head_is_zero_unless_asked():
    assert not np.any(logits(small(pretrained_head="zero")))
    assert np.all(np.abs(logits(small())).max(axis=1) > 0)


def test_weights_come_from_the_seed():
    first, same, other = small(seed=1), small(seed=1), small(seed=2)
    for a, b, c in zip(first.get_parameters(), same.get_parameters(), other.get_parameters()):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
        if a.ndim > 1:
            assert np.any(a.asnumpy() != c.asnumpy())


def test_the_ports_padding_differs_where_the_stride_is_2():
    official, port = small(), small(stride_padding="same")
    for ours, theirs in zip(official.get_parameters(), port.get_parameters()):
        theirs.set_data(ours)
    assert np.abs(logits(official) - logits(port)).max() > 1e-3 * np.abs(logits(official)).max()
    strides = [
        cell.operators[0].pad_mode for _, cell in port.cells_and_names() if isinstance(cell, StdConv2d)
    ]
    assert strides.count("same") + strides.count("SAME") == sum(SMALL["block_units"])


@pytest.mark.usefixtures("graph_mode")
def test_recomputation_changes_nothing():
    plain, again = small(), small(recompute=True)
    assert [p.name for p in plain.get_parameters()] == [p.name for p in again.get_parameters()]
    loss, gradients = loss_and_gradients(plain)
    loss_again, gradients_again = loss_and_gradients(again)
    assert loss_again == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        difference = np.abs(gradients_again[name] - gradient).max()
        assert difference <= 1e-5 * np.abs(gradient).max(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_units": (1, 2, 3)}, "block_units: .1, 2, 3. given, allowed: a list of 4 whole numbers > 0"),
        ({"block_units": (1, 0, 1, 1)}, "block_units: 0 .entry 2. given"),
        ({"width_factor": 0.3}, "width_factor: 0.3 given, allowed: a multiple of 0.5"),
        ({"width_factor": 0}, "width_factor: 0 given, allowed: a number > 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        small(**arguments)


def test_the_zoo_builds_it_by_name():
    network = create_network("bit_r50x3", num_classes=3, **SMALL)
    assert isinstance(network, ResNetV2) and network.width_factor == 0.5
