# SPDX-License-Identifier: Apache-2.0
"""The other CIFAR networks against numpy in float64, and their sizes against those of the papers."""

import math
from itertools import pairwise

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.analysis.cost import measure
from src.layers.names import INPUT_WHITENING
from src.resnet9.resnet import HalvedShortcut
from src.zoo import (
    config_class_of,
    create_network,
    create_recipe,
    list_models,
    load_weights,
    recipe_class_of,
)
from tests.resnet9.oracle import _conv
from tests.resnet9.test_network import _torch_name

pytestmark = pytest.mark.usefixtures("without_graph")

NARROW = {
    "cifarnet": {"widths": (4, 5, 6)},
    "resnet20": {"width_factor": 0.25, "stage_blocks": 2},
    "vgg11": {"width_factor": 1 / 16},
}


def _filled(name, **arguments):
    """A narrow network in which no normalisation, bias or shift is what it starts as."""
    network = create_network(name, num_classes=3, **NARROW[name] | arguments)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim == 1 or parameter.name == "whiten.weight":
            values = 0.3 * rng.normal(size=parameter.shape) + parameter.name.endswith(("gamma", "variance"))
            parameter.set_data(ms.Tensor(np.abs(values).astype(np.float32)))
    return network


def _images(side=32):
    return np.random.default_rng(1).normal(size=(4, 3, side, side))


class Numpy:
    """The layers of a network in training, on float64, with its parameters by name."""

    def __init__(self, network):
        self.of = {p.name: p.asnumpy().astype(np.float64) for p in network.get_parameters()}

    def conv(self, name, x):
        weight = self.of[f"{name}.weight"]
        return (
            _conv(x, weight)[0] if weight.shape[2] == 3 else np.einsum("oi,nihw->nohw", weight[..., 0, 0], x)
        )

    def norm(self, name, x, eps):
        gamma, beta = (self.of[f"{name}.{leaf}"].reshape(-1, 1, 1) for leaf in ("gamma", "beta"))
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return (x - mean) / np.sqrt(variance + eps) * gamma + beta

    def head(self, features, scale):
        return scale * (features @ self.of["linear.weight"].T + self.of.get("linear.bias", 0))


def _gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def _relu(x):
    return np.maximum(x, 0)


def _pool(x, k):
    """The maximum of k x k windows; what is left over is dropped."""
    rows, columns = x.shape[2] // k, x.shape[3] // k
    x = x[:, :, : rows * k, : columns * k]
    return x.reshape(*x.shape[:2], rows, k, columns, k).max((3, 5))


def _assert_is(network, expected, side=32):
    result = network.set_train(True)(ms.Tensor(_images(side).astype(np.float32))).asnumpy()
    assert result.shape == expected.shape == (4, 3) and np.abs(expected).max() > 0.05
    assert np.abs(result - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("skip_unpooled", [False, True])
@pytest.mark.parametrize("group_convs", [2, 3])
def test_cifarnet_is_airbenchs(group_convs, skip_unpooled):
    network = _filled("cifarnet", group_convs=group_convs, skip_unpooled=skip_unpooled)
    net, x = Numpy(network), _images()
    w = net.of["whiten.weight"]
    parts = [
        np.einsum("oi,nihw->nohw", w[:, :, i, j], x[:, :, i : 31 + i, j : 31 + j])
        for i in (0, 1)
        for j in (0, 1)
    ]
    x = _gelu(sum(parts) + net.of["whiten.bias"].reshape(-1, 1, 1))
    for group in (1, 2, 3):
        first, second = f"group{group}.0", f"group{group}.1"
        x = _gelu(net.norm(f"{first}.bn", _pool(net.conv(f"{first}.conv", x), 2), 1e-12))
        inner = second if group_convs == 2 else f"{second}.block"
        y = _gelu(net.norm(f"{inner}.bn", net.conv(f"{inner}.conv", x), 1e-12))
        x = (
            y
            if group_convs == 2
            else _gelu(x + net.norm(f"{second}.bn", net.conv(f"{second}.conv", y), 1e-12))
        )
    _assert_is(network, net.head(_pool(x, 3)[:, :, 0, 0], 1 / 9))


def test_resnet_is_the_papers():
    network = _filled("resnet20")
    net, x = Numpy(network), _images()
    x = _relu(net.norm("bn1", net.conv("conv1", x), 1e-5))
    for stage in (1, 2, 3):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            halved = stage > 1 and block == 0
            y, shortcut = net.conv(f"{name}.conv1", x), x
            if halved:  # by a stride of 2: every second number of the convolution with stride 1
                y, more = y[:, :, ::2, ::2], y.shape[1] - x.shape[1]
                shortcut = np.pad(x[:, :, ::2, ::2], ((0, 0), (more // 2, more // 2), (0, 0), (0, 0)))
            y = _relu(net.norm(f"{name}.bn1", y, 1e-5))
            x = _relu(net.norm(f"{name}.bn2", net.conv(f"{name}.conv2", y), 1e-5) + shortcut)
    assert x.shape[1:] == (16, 8, 8)
    _assert_is(network, net.head(x.mean((2, 3)), 1.0))


def test_resnet_takes_weights_by_the_names_of_the_port():
    network = create_network("resnet20", num_classes=10)
    places = ["", *(f"layer{stage}.{block}." for stage in (1, 2, 3) for block in (0, 1, 2))]
    layers = [(place, number) for place in places for number in ((1, 2) if place else (1,))]
    names = {f"{place}conv{number}.weight" for place, number in layers} | {"linear.weight", "linear.bias"}
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        names |= {f"{place}bn{number}.{leaf}" for place, number in layers}
    shapes = {_torch_name(p.name): p.shape for p in network.get_parameters()}
    assert set(shapes) == names
    load_weights(network, {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()})
    assert all((p.asnumpy() == 0.5).all() for p in network.get_parameters())


@pytest.mark.parametrize("pool_before_norm", [False, True])
def test_vgg_is_the_papers(pool_before_norm):
    network = _filled("vgg11", pool_before_norm=pool_before_norm, input_whitening="dawnbench")
    net, x = Numpy(network), _images()
    x = net.conv("whiten", x)
    for stage, convs in enumerate((1, 1, 2, 2, 2)):
        for block in range(convs):
            name = f"stage{stage + 1}.{block}"
            x, last = net.conv(f"{name}.conv", x), block == convs - 1
            x = _pool(x, 2) if last and pool_before_norm else x
            x = _relu(net.norm(f"{name}.bn", x, 1e-5))
            x = _pool(x, 2) if last and not pool_before_norm else x
    assert x.shape[1:] == (32, 1, 1)
    _assert_is(network, net.head(x[:, :, 0, 0], 1.0))


def test_what_is_left_out_has_no_gradient():
    """So the weights of both get the same one; what counts less is the convolutions before a pooling."""
    of, counts = {}, {}
    for skip in (False, True):
        network = _filled("cifarnet", skip_unpooled=skip).set_train(True)
        weights = network.trainable_params()

        def loss(images, network=network):
            return (network(images) ** 2).sum()

        gradients = ms.value_and_grad(loss, None, weights)(ms.Tensor(_images().astype(np.float32)))[1]
        of[skip] = {p.name: gradient.asnumpy() for p, gradient in zip(weights, gradients, strict=True)}
        counts[skip] = {cell.name: cell.multiply_adds for cell in measure(network, image_size=32).cells}
    for name, gradient in of[False].items():
        assert np.abs(gradient - of[True][name]).max() <= 1e-4 * np.abs(gradient).max()
    for group, (side, before, width) in enumerate([(31, 24, 4), (15, 4, 5), (7, 5, 6)]):
        name = f"group{group + 1}.0.conv"
        weight = 9 * before * width
        assert (counts[False].pop(name), counts[True].pop(name)) == (
            side**2 * weight,
            (side - 1) ** 2 * weight,
        )
    assert counts[False] == counts[True]


@pytest.mark.parametrize(("side", "more"), [(6, 4), (5, 3), (4, 0)])
def test_a_shortcut_takes_every_second_pixel(side, more):
    x = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    expected = np.pad(x[:, :, ::2, ::2], ((0, 0), (more // 2, more - more // 2), (0, 0), (0, 0)))
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    cell = HalvedShortcut(more)

    def weighted(x):
        y = cell(x)
        return (y * ms.Tensor(weights)).sum(), y

    (_, y), gradient = ms.value_and_grad(weighted, 0, has_aux=True)(ms.Tensor(x))
    assert (y.asnumpy() == expected).all()
    spread = np.zeros_like(x)
    spread[:, :, ::2, ::2] = weights[:, more // 2 : more // 2 + 3]
    assert (gradient.asnumpy() == spread).all()


# --- sizes


@pytest.mark.parametrize(
    ("layers", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_resnets_have_the_papers_parameters(layers, millions):
    """Table 6 of arXiv 1512.03385; the sum is that of a network with n blocks a stage."""
    n = (layers - 2) // 6
    convs = [27 * 16, 9 * 16 * 16 * 2 * n]
    convs += [9 * (width // 2) * width + 9 * width**2 * (2 * n - 1) for width in (32, 64)]
    normalised = 16 + 2 * n * (16 + 32 + 64)
    network = create_network(f"resnet{layers}", num_classes=10)
    trained = sum(p.size for p in network.trainable_params())
    assert trained == sum(convs) + 2 * normalised + 64 * 10 + 10
    assert f"{trained / 1e6:.{len(millions) - 2}f}" == millions
    if layers == 20:
        products = sum(cell.multiply_adds for cell in measure(network, image_size=32).cells)
        assert products == 40_551_040


# The paper's parameters, exactly, of 1000 classes: 133, 133, 138 and 144 million in its table 2.
VGGS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}


@pytest.mark.parametrize("layers", VGGS)
def test_vggs_have_the_papers_convolutions(layers):
    """Its three dense layers and the biases of its convolutions are not here; normalisations are."""
    network = create_network(f"vgg{layers}", num_classes=10)
    shapes = [p.shape for p in network.trainable_params() if p.ndim == 4]
    channels = sum(shape[0] for shape in shapes)
    assert len(shapes) == layers - 3
    dense = (7 * 7 * 512 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    assert sum(math.prod(shape) for shape in shapes) + channels + dense == VGGS[layers]
    trained = sum(p.size for p in network.trainable_params())
    assert trained == VGGS[layers] - dense + channels + 513 * 10


@pytest.mark.parametrize(
    ("arguments", "trained", "products"),
    [
        ({}, 1_971_352, 118_147_360),
        ({"skip_unpooled": True}, 1_971_352, 105_360_160),
        ({"widths": (128, 384, 512), "group_convs": 3}, 9_915_416, 451_967_264),
    ],
    ids=["94", "94 skipping", "96"],
)
def test_airbenchs_networks_have_their_multiply_adds(arguments, trained, products):
    network = create_network("cifarnet", num_classes=10, **arguments)
    assert sum(p.size for p in network.trainable_params()) == trained
    assert sum(cell.multiply_adds for cell in measure(network, image_size=32).cells) == products


# --- where they start, other images, and what the engine asks for


def test_cifarnet_starts_as_airbenchs():
    network = create_network("cifarnet", num_classes=10, widths=(48, 64, 64))
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d) and name != "whiten":
            weight, count = cell.weight.asnumpy(), cell.in_channels
            identity = np.zeros((count, count, 3, 3))
            identity[np.arange(count), np.arange(count), 1, 1] = 1
            assert (weight[:count] == identity).all() and (weight[count:] != 0).all()
    assert not network.whiten.weight.requires_grad and network.whiten.bias.requires_grad
    assert {p.name.rpartition(".")[2] for p in network.trainable_params()} == {"weight", "bias", "beta"}
    usual = network.linear.weight.asnumpy()
    unit = create_network("cifarnet", num_classes=10, widths=(48, 64, 64), unit_head=True).linear.weight
    assert abs(np.abs(usual).max() - 1 / 8) < 1e-3
    np.testing.assert_allclose(unit.asnumpy(), usual / usual.std(ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("cifarnet", "none"),
        ("cifarnet", "dawnbench"),
        ("cifarnet", "airbench"),
        ("resnet20", "airbench"),
        ("resnet20", "dawnbench"),
        ("vgg11", "none"),
    ],
)
def test_any_form_of_whitening_and_images_of_other_sizes(name, form):
    network = create_network(name, num_classes=2, input_whitening=form, **NARROW[name]).set_train(False)
    for shape in [(33, 33), (64, 40)]:
        features = network.embed(ms.Tensor(np.ones((2, 3, *shape), np.float32))).asnumpy()
        assert features.shape == (2, network.linear.in_channels)


def test_stages_hold_all_but_the_classifier_in_the_order_of_the_network():
    for name in NARROW:
        network_class = recipe_class_of(name).network_class
        prefixes = (*network_class.stages, network_class.head_prefix)
        names = [p.name for p in create_network(name, num_classes=2, **NARROW[name]).get_parameters()]
        places = [[i for i, prefix in enumerate(prefixes) if one.startswith(prefix)] for one in names]
        assert all(len(place) == 1 for place in places)
        assert all(before <= behind for before, behind in pairwise(places))
        assert {place for (place,) in places} == set(range(len(prefixes)))


@pytest.mark.parametrize("form", INPUT_WHITENING)
@pytest.mark.parametrize("name", ["resnet9", *NARROW])
def test_what_is_frozen_has_nothing_before_it_that_is_trained_longer(name, form):
    narrow = {"resnet9": {"widths": (2, 2, 2, 2)}, **NARROW}[name]
    for bias_epochs in (0.0, 0.5, 3.0) if form == "airbench" else (0.0,):
        keys = {"model": name, "input_whitening": form, "whitening_bias_epochs": bias_epochs, **narrow}
        keys |= {"image_size": 33, "train_crop": "resize", "freeze_epochs": (1.0, 2.0)}
        recipe = create_recipe(config_class_of(name)(**keys))
        network = recipe.network(num_classes=2)
        groups = recipe.param_groups(network, recipe.loss())
        times = {p.name: group.epochs for group in groups for p in group.parameters}
        in_order = [times[p.name] for p in network.trainable_params()]
        assert in_order == sorted(in_order) and {2.0, math.inf} <= set(in_order)


def test_each_name_has_its_layers():
    for name in list_models():
        config = config_class_of(name)(model=name)
        if "stage_blocks" in type(config).model_fields:
            assert name == f"resnet{6 * config.stage_blocks + 2}"
        if "stage_convs" in type(config).model_fields:
            assert name == f"vgg{sum(config.stage_convs) + 3}"
