"""birealnet18 and 50 against the numbers of the official PyTorch code in float64, its weights by its names.

bireal50.npz was made by the official birealnet50 as bireal.npz was: weights and input by `fill`.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from src.layers.binary import ApproxSign
from src.losses import CrossEntropy
from src.weights import load_weights
from src.zoo import create_network
from tests.vectors.fill import fill

pytestmark = pytest.mark.usefixtures("graph_mode")
FILES = {"birealnet18": "bireal.npz", "birealnet50": "bireal50.npz"}


def _error(result, expected) -> float:
    """The largest difference, in parts of the largest magnitude."""
    return float(np.abs(np.asarray(result, np.float64) - expected).max() / np.abs(expected).max())


def _read(file: str) -> SimpleNamespace:
    with np.load(Path(__file__).parents[1] / "vectors" / file) as arrays:
        return SimpleNamespace(**arrays)


@pytest.fixture(scope="module", params=FILES)
def official(request, tmp_path_factory) -> SimpleNamespace:
    """The vectors, and a file of the weights that they belong to, as the official training names them."""
    numbers = _read(FILES[request.param])
    numbers.model = request.param
    shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in numbers.state_shapes]
    state = {
        f"module.{name}": fill(name, shape) for name, shape in zip(map(str, numbers.state_names), shapes)
    }
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    state |= {f"{name}num_batches_tracked": np.array(7) for name in norms}
    numbers.file = tmp_path_factory.mktemp("official") / "model_best.npz"
    np.savez(numbers.file, **state)
    numbers.images = fill(str(numbers.input_name), tuple(numbers.input_shape))
    return numbers


@pytest.fixture
def network(official):
    network = create_network(official.model, num_classes=int(official.num_classes))
    load_weights(network, official.file)
    return network


def test_evaluation(network, official):
    logits = network.set_train(False)(ms.Tensor(official.images)).asnumpy()
    assert _error(logits, official.logits_eval) < 1e-4


def test_a_training_step(network, official):
    network.set_train()
    cross_entropy = CrossEntropy()

    def forward(images, labels):
        logits = network(images)
        return cross_entropy(logits, labels), logits

    parameters = network.trainable_params()
    step = ms.value_and_grad(forward, None, ms.ParameterTuple(parameters), has_aux=True)
    labels = ms.Tensor(official.labels.astype(np.int32))
    (loss, logits), gradients = step(ms.Tensor(official.images), labels)
    assert _error(logits.asnumpy(), official.logits_train) < 1e-4
    assert _error(loss.asnumpy(), official.loss) < 1e-4
    names = dict(zip((p.name for p in parameters), gradients, strict=True))
    ours = []
    for name in map(str, official.param_names):
        own = re.sub(r"(bn\d|downsample\.2)\.weight$", r"\1.gamma", name)
        own = re.sub(r"(bn\d|downsample\.2)\.bias$", r"\1.beta", own).replace("conv.weights", "conv.weight")
        ours.append(np.linalg.norm(names.pop(own).asnumpy().astype(np.float64)))
    assert not names
    assert _error(ours, official.grad_norms) < 1e-4
    assert (np.abs(ours - official.grad_norms) / official.grad_norms).max() < 1e-3
    if official.model == "birealnet18":
        index = [p.name for p in parameters].index("layer1.0.binary_conv.weight")
        assert _error(gradients[index].asnumpy(), official.grad_first_binary) < 1e-4
        assert _error(network.bn1.moving_mean.asnumpy(), official.bn1_running_mean_after) < 1e-5


def test_approx_sign():
    numbers = _read("bireal.npz")

    def forward(x):
        out = ApproxSign()(x)
        return out.sum(), out

    points = ms.Tensor(numbers.act_in.astype(np.float32))
    (_, out), gradient = ms.value_and_grad(forward, 0, has_aux=True)(points)
    assert (out.asnumpy() == numbers.act_out).all()
    assert _error(gradient.asnumpy(), numbers.act_grad) < 1e-6
