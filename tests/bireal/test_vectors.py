# SPDX-License-Identifier: Apache-2.0
"""birealnet18 and 50 against the numbers of the official PyTorch code in float64, its weights by its names.

bireal50.npz was made by the official birealnet50 as bireal.npz was: weights and input by `fill`.
"""

import re
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint.weights import load_weights
from src.layers.binary import ApproxSign
from src.zoo import create_network
from tests.vectors.official import error, read, state, training_step

pytestmark = pytest.mark.usefixtures("graph_mode")
FILES = {"birealnet18": "bireal.npz", "birealnet50": "bireal50.npz"}


@pytest.fixture(scope="module", params=FILES)
def official(request, tmp_path_factory) -> SimpleNamespace:
    """The vectors, and a file of the weights that they belong to, as the official training names them."""
    numbers = read(FILES[request.param])
    numbers.model = request.param
    weights = {f"module.{n}": array for n, array in state(numbers.state_names, numbers.state_shapes).items()}
    norms = [name.removesuffix("running_mean") for name in weights if name.endswith("running_mean")]
    weights |= {f"{name}num_batches_tracked": np.array(7) for name in norms}
    numbers.file = tmp_path_factory.mktemp("official") / "model_best.npz"
    np.savez(numbers.file, **weights)
    return numbers


@pytest.fixture
def network(official):
    network = create_network(official.model, num_classes=int(official.num_classes))
    load_weights(network, official.file)
    return network


def test_evaluation(network, official):
    logits = network.set_train(False)(ms.Tensor(official.images)).asnumpy()
    assert error(logits, official.logits_eval) < 1e-4


def test_a_training_step(network, official):
    loss, logits, gradients = training_step(network, official.images, official.labels)
    assert error(logits, official.logits_train) < 1e-4
    assert error(loss, official.loss) < 1e-4
    if official.model == "birealnet18":
        assert error(gradients["layer1.0.binary_conv.weight"], official.grad_first_binary) < 1e-4
        assert error(network.bn1.moving_mean.asnumpy(), official.bn1_running_mean_after) < 1e-5
    ours = []
    for name in map(str, official.param_names):
        own = re.sub(r"(bn\d|downsample\.2)\.weight$", r"\1.gamma", name)
        own = re.sub(r"(bn\d|downsample\.2)\.bias$", r"\1.beta", own).replace("conv.weights", "conv.weight")
        ours.append(np.linalg.norm(gradients.pop(own).astype(np.float64)))
    assert not gradients
    assert error(ours, official.grad_norms) < 1e-4
    assert (np.abs(ours - official.grad_norms) / official.grad_norms).max() < 1e-3


def test_approx_sign():
    numbers = read("bireal.npz")

    def forward(x):
        out = ApproxSign()(x)
        return out.sum(), out

    points = ms.Tensor(numbers.act_in.astype(np.float32))
    (_, out), gradient = ms.value_and_grad(forward, 0, has_aux=True)(points)
    assert (out.asnumpy() == numbers.act_out).all()
    assert error(gradient.asnumpy(), numbers.act_grad) < 1e-6
