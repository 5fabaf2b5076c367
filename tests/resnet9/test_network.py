# SPDX-License-Identifier: Apache-2.0
"""ResNet9 against the numbers of the official PyTorch code, and its variants against their definitions."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.layers.losses import CrossEntropy
from src.layers.pixels import Pixels
from src.optim.groups import ParamRule, group_parameters
from src.optim.optimizers import SGD
from src.resnet9.network import ConvBlock
from src.training.loss_scale import LossScale
from src.training.train_step import TrainStep
from src.zoo import create_network
from tests.resnet9 import oracle
from tests.vectors.fill import fill

pytestmark = pytest.mark.usefixtures("graph_mode")

TORCH_LEAF = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _torch_name(name: str) -> str:
    prefix, _, leaf = name.rpartition(".")
    return f"{prefix}.{TORCH_LEAF.get(leaf, leaf)}"


def _error(result, expected) -> float:
    """The largest difference, in parts of the largest magnitude."""
    return float(np.abs(np.asarray(result, np.float64) - expected).max() / np.abs(expected).max())


# --- the official numbers


@pytest.fixture(scope="module")
def official() -> SimpleNamespace:
    """The vectors, with the weights and the images they belong to."""
    with np.load(Path(__file__).parents[1] / "vectors" / "resnet9.npz") as arrays:
        numbers = SimpleNamespace(**arrays)
    shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in numbers.state_shapes]
    numbers.state = {str(name): fill(str(name), shape) for name, shape in zip(numbers.state_names, shapes)}
    numbers.batch = int(numbers.batch)
    numbers.images = fill(str(numbers.input_name), (numbers.batch, 3, 32, 32))
    numbers.labels = np.arange(numbers.batch) % 10
    numbers.decay = {"momentum": float(numbers.momentum), "weight_decay": float(numbers.weight_decay)}
    return numbers


@pytest.fixture(scope="module")
def network(official):
    """The full network; every test loads the weights that it needs."""
    return create_network("resnet9", num_classes=10)


def test_names_and_shapes_are_the_official_ones(network, official):
    shapes = {_torch_name(p.name): tuple(p.shape) for p in network.get_parameters()}
    assert shapes == {name: values.shape for name, values in official.state.items()}
    assert {_torch_name(p.name) for p in network.trainable_params()} == set(official.param_names)
    assert sum(p.size for p in network.trainable_params()) == official.param_count == 6_573_120


@pytest.mark.parametrize(("training", "vector"), [(False, "logits_eval"), (True, "logits_train")])
def test_logits(network, official, training, vector):
    load_weights(network, official.state)
    network.set_train(training)
    assert _error(network(ms.Tensor(official.images)).asnumpy(), getattr(official, vector)) < 1e-4


def _assign(parameter, values) -> None:
    """Not `set_data`: a compiled step goes on with the old values of what it holds behind an `if`."""
    ops.assign(parameter, ms.Tensor(values))


@pytest.fixture(scope="module")
def training(network, official) -> SimpleNamespace:
    """One compiled train step, and what the three official updates look like in float64.

    The loss of a step is a mean, so it has the official rates and weight decay as they are: there the loss is
    a sum, its rate divided and its weight decay multiplied by the batch.
    """
    load_weights(network, official.state)
    groups = group_parameters(
        network.trainable_params(), [ParamRule("all", ".*", float(official.weight_decay))]
    )
    optimizer = SGD(groups, momentum=float(official.momentum), nesterov=True, lr_in_velocity=True)
    step = TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        CrossEntropy(),
        optimizer,
        rates=official.sgd_lrs,
        loss_scale=LossScale("none"),
    )
    step.set_train(True)
    batch = ms.Tensor(official.images), ms.Tensor(official.labels.astype(np.int32))

    parameters = {name: official.state[name].astype(np.float64) for name in official.param_names}
    velocity = {name: np.zeros_like(value) for name, value in parameters.items()}
    states = []
    for lr in official.sgd_lrs:
        loss, gradients = oracle.sum_loss_and_gradients(
            parameters, official.images.astype(np.float64), official.labels
        )
        states.append(
            SimpleNamespace(parameters=parameters, velocity=velocity, loss=loss, gradients=gradients)
        )
        means = {name: gradient / official.batch for name, gradient in gradients.items()}
        parameters, velocity = oracle.update(parameters, velocity, means, lr=lr, **official.decay)
    states.append(SimpleNamespace(parameters=parameters, velocity=velocity))

    def start(k: int) -> None:
        """Puts the exact state before update k into network and optimizer (velocities: other sign)."""
        load_weights(network, official.state)
        _assign(step.updates, np.array(k, np.int32))
        for parameter, velocity in zip(optimizer.parameters, optimizer.velocity):
            name = _torch_name(parameter.name)
            _assign(parameter, states[k].parameters[name].astype(np.float32))
            _assign(velocity, -states[k].velocity[name].astype(np.float32))

    return SimpleNamespace(
        states=states,
        start=start,
        optimizer=optimizer,
        loss=lambda: official.batch * step(*batch)[0].asnumpy(),
    )


def test_the_oracle_is_the_official_code(training, official):
    first, *_, last = training.states
    norms = [np.linalg.norm(first.gradients[name]) for name in official.param_names]
    np.testing.assert_allclose(norms, official.grad_norms_sum_loss, rtol=1e-9)
    losses = [state.loss for state in training.states[:3]]
    np.testing.assert_allclose(losses, official.sgd_sum_losses, rtol=1e-9)
    np.testing.assert_allclose(last.parameters["linear.weight"], official.final_linear, rtol=0, atol=1e-9)


def test_gradient_norms_of_the_summed_loss(training, official):
    """After the first update the velocity is the rate times the mean loss's gradient and the weight decay."""
    training.start(0)
    training.loss()
    norms = {}
    for parameter, velocity in zip(training.optimizer.parameters, training.optimizer.velocity):
        name = _torch_name(parameter.name)
        decay = float(official.weight_decay) * official.state[name]
        gradient = velocity.asnumpy().astype(np.float64) / official.sgd_lrs[0] - decay
        norms[name] = official.batch * np.linalg.norm(gradient)
    assert set(norms) == set(official.param_names)
    assert _error([norms[name] for name in official.param_names], official.grad_norms_sum_loss) < 1e-4


def test_losses_of_three_nesterov_updates(training, official):
    training.start(0)
    losses = [training.loss() for _ in official.sgd_lrs]
    assert _error(losses, official.sgd_sum_losses) < 1e-4


def _classifier(training) -> np.ndarray:
    (linear,) = (p for p in training.optimizer.parameters if p.name.endswith("linear.weight"))
    return linear.asnumpy()


def test_the_classifier_after_three_updates(training, official):
    training.start(0)
    for _ in official.sgd_lrs:
        training.loss()
    assert _error(_classifier(training), official.final_linear) < 1e-4


def test_each_update_from_the_exact_state_before_it(training):
    """What three updates in a row cannot tell apart: rounding that a later update amplifies.

    A ReLU input within rounding of 0 that falls to the other side changes small batches' gradients by parts
    of a thousand.
    """
    for k in range(3):
        training.start(k)
        assert abs(training.loss() / training.states[k].loss - 1) < 1e-4
        assert _error(_classifier(training), training.states[k + 1].parameters["linear.weight"]) < 1e-4


# --- features, head and variants


SMALL = {"num_classes": 3, "widths": (4, 5, 6, 7)}


def _images(count=2) -> ms.Tensor:
    values = np.random.default_rng(0).normal(size=(count, 3, 32, 32))
    return ms.Tensor(values.astype(np.float32))


@pytest.mark.usefixtures("without_graph")
def test_logits_are_the_scaled_head_on_the_features():
    network = create_network("resnet9", head_scale=0.5, **SMALL)
    network.set_train(False)
    features = network.embed(_images()).asnumpy()
    assert features.shape == (2, 7)
    expected = 0.5 * features.astype(np.float64) @ network.linear.weight.asnumpy().T
    np.testing.assert_allclose(network(_images()).asnumpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "pool_before_norm"),
    [("relu", True), ("celu", False), ("celu", True), ("gelu", False), ("gelu", True)],
)
def test_variants_train(activation, pool_before_norm):
    network = create_network("resnet9", activation=activation, pool_before_norm=pool_before_norm, **SMALL)
    network.set_train(True)

    def loss(images):
        return (network(images) ** 2).sum()

    value, gradients = ms.value_and_grad(loss, None, weights=network.trainable_params())(_images())
    assert np.isfinite(value.asnumpy()) and len(gradients) == 25
    for parameter, gradient in zip(network.trainable_params(), gradients):
        gradient = gradient.asnumpy()
        assert np.isfinite(gradient).all() and gradient.any(), parameter.name


_erf = np.vectorize(math.erf)
_FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "celu": lambda x: np.maximum(x, 0) + 0.3 * np.expm1(np.minimum(x, 0) / 0.3),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / np.sqrt(2))),
}


def _pooled(x) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


@pytest.mark.usefixtures("without_graph")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool_before_norm", [True, False])
@pytest.mark.parametrize("activation", _FORMULAS)
def test_the_order_within_a_block(activation, pool_before_norm, training):
    """conv, norm, activation, pool; with `pool_before_norm` conv, pool, norm, activation."""
    block = ConvBlock(2, 3, pool=2, pool_before_norm=pool_before_norm, act=activation, celu_alpha=0.3)
    rng = np.random.default_rng(0)
    block.conv.weight.set_data(ms.Tensor(rng.normal(size=(3, 2, 3, 3)).astype(np.float32)))
    # A negative scale turns the order of values round, so it tells pooling before and behind the norm apart.
    scale, offset = np.array([1.5, -1.0, 0.5]), np.array([0.1, 0.2, -0.3])
    block.bn.gamma.set_data(ms.Tensor(scale.astype(np.float32)))
    block.bn.beta.set_data(ms.Tensor(offset.astype(np.float32)))
    images = ms.Tensor(rng.normal(size=(2, 2, 6, 6)).astype(np.float32))
    block.set_train(training)

    def norm(x):
        mean, variance = (x.mean((0, 2, 3)), x.var((0, 2, 3))) if training else (np.zeros(3), np.ones(3))
        shape = (3, 1, 1)
        x = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
        return x * scale.reshape(shape) + offset.reshape(shape)

    x = block.conv(images).asnumpy().astype(np.float64)
    act = _FORMULAS[activation]
    expected = act(norm(_pooled(x))) if pool_before_norm else _pooled(act(norm(x)))
    assert expected.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(block(images).asnumpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("without_graph")
def test_a_block_without_pooling_keeps_the_size():
    assert list(ConvBlock(2, 3).name_cells()) == ["conv", "bn", "act"]
    assert ConvBlock(2, 3)(ms.Tensor(np.zeros((1, 2, 5, 4), np.float32))).shape == (1, 3, 5, 4)


def test_the_seed_decides_the_weights():
    first, same, other = (create_network("resnet9", seed=seed, **SMALL) for seed in (1, 1, 2))
    assert (first.linear.weight.asnumpy() == same.linear.weight.asnumpy()).all()
    assert not (first.linear.weight.asnumpy() == other.linear.weight.asnumpy()).any()


@pytest.mark.parametrize("widths", [(1, 2, 3), (1, 2, 3, 4, 5), (0, 2, 3, 4), ()])
def test_widths_that_are_not_four_positive_numbers(widths):
    with pytest.raises(UserError, match=r"^widths: .* given, allowed: "):
        create_network("resnet9", num_classes=3, widths=widths)


def test_an_activation_that_nobody_knows():
    with pytest.raises(UserError, match="activation: 'swish' given, allowed: one of relu, celu, gelu"):
        create_network("resnet9", num_classes=3, activation="swish")


# --- images of other sizes


@pytest.mark.parametrize(("height", "width"), [(64, 96), (16, 16)])
def test_images_of_other_sizes_give_the_largest_value_of_each_map(height, width):
    network = create_network("resnet9", num_classes=3, widths=(4, 4, 4, 4)).set_train(False)
    images = ms.Tensor(fill("images", (2, 3, height, width)))
    maps = network.layer1(network.prep(images))
    maps = network.layer3(network.layer2(maps + network.layer1_res2(network.layer1_res1(maps))))
    maps = maps + network.layer3_res2(network.layer3_res1(maps))
    assert maps.shape == (2, 4, height // 8, width // 8)
    np.testing.assert_array_equal(network.embed(images).asnumpy(), maps.asnumpy().max((2, 3)))
    assert network(images).shape == (2, 3)
