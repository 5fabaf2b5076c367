# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net's keys reach the network and the parameter groups; its monitor; files of configs/bireal."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src.bireal.config import BiRealConfig
from src.bireal.monitor import BinaryMonitor
from src.bireal.recipe import BiRealRecipe
from src.common.errors import UserError
from src.layers.binary import BinaryConv2d, ScaledSign
from src.layers.losses import CrossEntropy
from src.layers.norm import BatchNorm
from src.model_utils.config import check, load_config
from src.zoo import config_class_of

CONFIGS = Path(__file__).parents[2] / "configs" / "bireal"
SMALL = {"block_units": [1, 1, 1, 1], "widths": [4, 4, 8, 8], "image_size": 32, "stem": "small"}


def recipe(**keys) -> BiRealRecipe:
    return BiRealRecipe(check(keys, BiRealConfig))


def of_file(name: str, **keys) -> BiRealRecipe:
    return BiRealRecipe(load_config(keys, config_class_of=config_class_of, config_path=CONFIGS / name))


def test_the_earlier_ports_differences():
    network = of_file("birealnet34_port.yaml", widths=(4, 4, 4, 4)).network(num_classes=3)
    block = network.layer2[0]
    assert [type(cell).__name__ for cell in block.activation] == ["UnitDeviation", "ApproxSign"]
    assert not block.binary_conv.quantiser.rule.clipped
    assert type(block.after_add).__name__ == type(network.after_stem).__name__ == "LeakyClip"
    assert isinstance(network.head_norm, BatchNorm)
    assert len(network.layer3) == 12


def test_the_official_network_is_the_default():
    network = recipe(widths=[4, 4, 4, 4]).network(num_classes=3)
    block = network.layer2[0]
    assert type(block.activation).__name__ == "ApproxSign" and block.binary_conv.quantiser.rule.clipped
    assert type(block.after_add).__name__ == type(network.head_norm).__name__ == "Identity"


@pytest.mark.parametrize("name", ["birealnet18", "birealnet50"])
def test_no_decay_pulls_at_binary_weights(name):
    keys = {**SMALL, "model": name, "weight_decay": 0.01}
    network = recipe(**keys).network(num_classes=3)
    optimizer = recipe(**keys).optimizer(network, CrossEntropy())
    decay = dict(zip((p.name for p in optimizer.parameters), optimizer.weight_decay, strict=True))
    binary = {c.weight.name for _, c in network.cells_and_names() if isinstance(c, BinaryConv2d)}
    assert {name for name, value in decay.items() if value == 0} == binary
    twin = recipe(**keys, binary_weights=False)
    assert min(twin.optimizer(twin.network(num_classes=3), CrossEntropy()).weight_decay) > 0


def test_official_rates():
    """Linear to 0 over the run, and multiplied as the images of an update."""
    rates = of_file("birealnet18_imagenet.yaml").rates(
        updates=256, updates_per_epoch=1, images_per_update=512
    )
    np.testing.assert_allclose(rates, [1e-3 * (1 - epoch / 256) for epoch in range(256)])
    doubled = of_file("birealnet18_imagenet.yaml").rates(
        updates=256, updates_per_epoch=1, images_per_update=1024
    )
    np.testing.assert_allclose(doubled, 2 * rates)
    port = of_file("birealnet34_port.yaml").rates(updates=300, updates_per_epoch=1, images_per_update=1024)
    np.testing.assert_allclose(port, [1e-6 + (1e-3 - 1e-6) * (1 - epoch / 300) for epoch in range(300)])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_size": 100}, "image_size: 100 given, allowed: multiples of 32 with stem imagenet"),
        ({"eval_image_size": 230}, "eval_image_size: 230 given, allowed: multiples of 32"),
        (
            {"image_size": 40, "stem": "small"},
            "image_size: 40 given, allowed: multiples of 16 with stem small",
        ),
        ({"widths": [4, 4]}, "widths: .4, 4. given, allowed: a list of 4 whole numbers > 0"),
        ({"block_units": [4]}, "block_units: .4. given, allowed: a list of 4 whole numbers > 0$"),
        ({"activation": "sign"}, "activation: 'sign' given, allowed: one of relu, celu, gelu, "),
    ],
)
def test_wrong_keys(keys, message):
    with pytest.raises(UserError, match=message):
        recipe(**keys)


# --- the monitor


@pytest.fixture
def watched(request):
    ms.set_context(mode=ms.GRAPH_MODE)
    made = recipe(**SMALL, **getattr(request, "param", {}))
    network, inputs = made.network(num_classes=3), made.inputs()
    return network.set_train(False), made.monitor(network, inputs)


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def test_flips_are_counted_since_the_last_measurement(watched):
    network, monitor = watched
    assert monitor.measure(lambda: IMAGES)["bit_flips"] == 0
    weights = [c.weight for _, c in network.cells_and_names() if isinstance(c, BinaryConv2d)]
    changed = weights[1].asnumpy().copy()
    changed.reshape(-1)[:5] *= -1
    weights[1].set_data(ms.Tensor(changed))
    expected = 100 * 5 / sum(weight.size for weight in weights)
    assert monitor.measure(lambda: IMAGES)["bit_flips"] == pytest.approx(expected)
    assert monitor.measure(lambda: IMAGES)["bit_flips"] == 0
    assert {p.name for p in monitor.parameters} == {f"monitor.{weight.name}" for weight in weights}
    assert all(p.dtype == ms.int8 and not p.requires_grad for p in monitor.parameters)


@pytest.mark.parametrize(
    "watched", [{}, {"divide_by_deviation": True}], indirect=True, ids=["plain", "divided"]
)
def test_saturation_against_a_walk_through_the_blocks(watched):
    network, monitor = watched
    rng = np.random.default_rng(1)
    for _, cell in network.cells_and_names():
        if hasattr(cell, "moving_variance"):
            cell.gamma.set_data(ms.Tensor(rng.uniform(0.5, 2, cell.gamma.shape).astype(np.float32)))
    before = [p.asnumpy().copy() for p in network.get_parameters()]
    x = network.bn1(network.conv1(monitor.inputs(ms.Tensor(IMAGES))))
    counted = total = 0
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            values = x.asnumpy().astype(np.float64)
            if monitor.deviations:
                values = values / values.std(axis=(1, 2, 3), keepdims=True)
            counted, total = counted + (np.abs(values) >= 1).sum(), total + values.size
            x = block(x)
    share = monitor.measure(lambda: IMAGES)["saturated_activations"]
    assert share == pytest.approx(100 * counted / total, abs=0.02) and 5 < share < 95
    assert all((a == p.asnumpy()).all() for a, p in zip(before, network.get_parameters(), strict=True))
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert not any(cell.training for _, cell in network.cells_and_names())


def test_what_has_no_signs_is_not_watched():
    twin = recipe(**SMALL, activation="relu", binary_weights=False)
    assert twin.monitor(twin.network(num_classes=3), twin.inputs()) is None
    half = recipe(**SMALL, activation="clip")
    monitor = half.monitor(half.network(num_classes=3), half.inputs())
    assert isinstance(monitor, BinaryMonitor) and monitor.measure(lambda: IMAGES).keys() == {"bit_flips"}


def test_a_twin_s_weights_start_a_binary_network():
    """Stage 2 of the paper's training: the same names, and what is used are their signs."""
    from src.checkpoint.weights import load_weights

    twin = recipe(**SMALL, activation="clip", binary_weights=False).network(num_classes=3)
    network = recipe(**SMALL).network(num_classes=3)
    load_weights(network, {p.name: p.asnumpy() for p in twin.get_parameters()})
    weight = twin.layer1[0].binary_conv.weight
    assert (network.layer1[0].binary_conv.weight.asnumpy() == weight.asnumpy()).all()
    used = ScaledSign()(weight).asnumpy()
    assert len(np.unique(np.abs(used[0]))) == 1
