# SPDX-License-Identifier: Apache-2.0
"""The tricks that all CIFAR networks take: what each does to the network."""

import mindspore as ms
import numpy as np
import pytest

from src.layers.names import INPUT_WHITENING
from src.layers.norm import BatchNorm
from src.zoo import create_network

pytestmark = pytest.mark.usefixtures("without_graph")

NARROW = {
    "resnet9": {"widths": (28, 28, 30, 24)},
    "cifarnet": {"widths": (28, 30, 24), "group_convs": 3},
    "resnet20": {"stage_blocks": 1},
    "vgg11": {"width_factor": 0.5},
}


def _network(name, **arguments):
    return create_network(name, num_classes=3, **NARROW[name], **arguments)


def _images(side=32):
    return ms.Tensor(np.random.default_rng(1).normal(size=(4, 3, side, side)).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "input_whitening"),
    [
        (name, form) for name in NARROW for form in INPUT_WHITENING if (name, form) != ("vgg11", "airbench")
    ],  # which needs larger images
)
def test_convolutions_behind_the_first_start_by_copying(name, input_whitening):
    """The whitening is the first where there is one; no other weight is drawn in another way."""
    plain, copying = (
        _network(name, input_whitening=input_whitening, dirac_init=dirac) for dirac in (False, True)
    )
    convolutions = [p.name for p in plain.get_parameters() if p.ndim == 4]
    after, before = ({p.name: p.asnumpy() for p in n.get_parameters()} for n in (copying, plain))
    for parameter in convolutions:
        if parameter == convolutions[0]:
            copied = 0
        else:
            weight = after[parameter]
            copied = min(weight.shape[:2])
            identity = np.zeros(weight[:copied].shape)
            identity[range(copied), range(copied), weight.shape[2] // 2, weight.shape[3] // 2] = 1
            np.testing.assert_array_equal(weight[:copied], identity)
        np.testing.assert_array_equal(after[parameter][copied:], before[parameter][copied:])
    assert (convolutions[0] == "whiten.weight") == (input_whitening != "none")


@pytest.mark.parametrize("name", NARROW)
def test_every_normalisation_has_the_settings(name):
    network = _network(name, norm_momentum=0.4, norm_eps=1e-3, norm_scale="fixed", ghost_batch=2)
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, BatchNorm)]
    assert {(n.momentum, n.eps, n.ghost_batch, n.gamma.requires_grad) for n in norms} == {
        (0.4, 1e-3, 2, False)
    }
    assert len(norms) == sum(p.ndim == 4 for p in network.get_parameters()) - hasattr(
        network.whiten, "weight"
    )


def test_the_fixed_and_the_1x1_convolution_of_dawnbench_are_one_3x3():
    """Its weight is the product of theirs."""
    plain, whitened = (_network("resnet9", input_whitening=form) for form in ("none", "dawnbench"))
    fixed, mixed = (
        cell.weight.asnumpy().astype(np.float64) for cell in (whitened.whiten, whitened.prep.conv)
    )
    product = np.einsum("om,mihw->oihw", mixed[:, :, 0, 0], fixed)
    plain.prep.conv.weight.set_data(ms.Tensor(product.astype(np.float32)))
    answers = [network.set_train(True)(_images()).asnumpy() for network in (plain, whitened)]
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-5 * np.abs(answers[0]).max())


@pytest.mark.parametrize("side", [32, 40])
def test_the_whitening_of_airbench_takes_a_pixel_off(side):
    network = _network("resnet9", input_whitening="airbench", activation="silu").set_train(False)
    bias = np.linspace(-1, 1, 24).astype(np.float32)
    network.whiten.bias.set_data(ms.Tensor(bias))
    images, weight = _images(side), network.whiten.weight.asnumpy().astype(np.float64)
    pixels = images.asnumpy().astype(np.float64)
    maps = sum(
        np.einsum("oi,nihw->nohw", weight[:, :, i, j], pixels[:, :, i : side - 1 + i, j : side - 1 + j])
        for i in (0, 1)
        for j in (0, 1)
    ) + bias.reshape(-1, 1, 1)
    expected = maps / (1 + np.exp(-maps))
    np.testing.assert_allclose(network.whitened(images).asnumpy(), expected, rtol=0, atol=1e-5)
    assert network(images).shape == (4, 3)
