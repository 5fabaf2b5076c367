# SPDX-License-Identifier: Apache-2.0
"""MultiGrain's network against the official numbers, torchvision's names and counts, and its options."""

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.layers.gem import l2_normalise
from src.multigrain.network import MultiGrain
from src.training.precision import set_precision
from src.zoo import create_network
from tests.vectors.official import error, read, state

pytestmark = pytest.mark.usefixtures("without_graph")
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)


def small(**arguments) -> MultiGrain:
    shape = {"block_units": (1, 2, 1, 1), "widths": (4, 8, 8, 12)}
    return create_network("multigrain_resnet50", num_classes=5, **shape | arguments).set_train(False)


@pytest.fixture(scope="module")
def official():
    return read("multigrain.npz")


@pytest.mark.usefixtures("graph_mode")
def test_official_numbers_from_weights_by_torchvision_s_names(official):
    network = create_network("multigrain_resnet50", num_classes=int(official.num_classes))
    weights = state(official.state_names, official.state_shapes)
    counters = {f"{n.removesuffix('running_mean')}num_batches_tracked": np.array(7) for n in weights
                if n.endswith("running_mean")}  # fmt: skip
    load_weights(network, {f"module.{name}": array for name, array in (weights | counters).items()})
    images = ms.Tensor(official.images)
    network.set_train(False)
    assert error(network(images).asnumpy(), official.logits) < 1e-5
    embedding = network.embed(images)
    assert error(embedding.asnumpy(), official.embedding) < 1e-5
    assert error(l2_normalise(embedding).asnumpy(), official.normalized) < 1e-5


@pytest.mark.parametrize(
    ("depth", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameter_count(monkeypatch, depth, count):
    """torchvision's."""
    monkeypatch.setattr("src.multigrain.network.initialise", lambda *_, **__: None)
    network = create_network(f"multigrain_resnet{depth}", num_classes=1000)
    assert sum(p.size for p in network.trainable_params()) == count


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_shapes_and_features(bottleneck, stem):
    network = small(bottleneck=bottleneck, stem=stem)
    images = ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32))
    channels = 48 if bottleneck else 12
    features = network.features(images)
    assert features.shape == ((2, channels, 2, 3) if stem == "imagenet" else (2, channels, 4, 6))
    pooled = network.embed(images)
    assert pooled.shape == (2, channels)
    np.testing.assert_allclose(network(images).asnumpy(), network.fc(pooled).asnumpy(), rtol=1e-5, atol=1e-6)


def test_training_puts_out_the_embedding_too():
    network = small()
    network.training_embedding = True
    logits = network(ms.Tensor(IMAGES))
    assert logits.shape == (2, 5)
    embedding, trained = network.set_train(True)(ms.Tensor(IMAGES))
    assert embedding.shape == (2, 48) and trained.shape == (2, 5)


def test_a_learnt_exponent_is_a_parameter():
    network = small(learn_pooling_exponent=True, pooling_exponent=2.5)
    learnt = {p.name: p.asnumpy() for p in network.trainable_params()}
    assert learnt["pool.p"] == 2.5
    assert not any("pool" in p.name for p in small().get_parameters())


def test_float16_leaves_the_embedding_in_float32():
    network = set_precision(small(), "O2")
    embedding = network.embed(ms.Tensor(IMAGES))
    assert embedding.dtype == ms.float32
    assert error(embedding.asnumpy(), small().embed(ms.Tensor(IMAGES)).asnumpy()) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (4, 4, 4)}, "widths: .4, 4, 4. given, allowed: a list of 4"),
        ({"stem": "tiny"}, "stem: 'tiny' given, allowed: one of imagenet, small"),
        ({"whitening_dim": 50}, "whitening_dim: 50 given, allowed: up to 49"),
    ],
)
def test_impossible_networks(arguments, message):
    with pytest.raises(UserError, match=message):
        small(**arguments)
