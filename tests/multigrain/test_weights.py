# SPDX-License-Identifier: Apache-2.0
"""Names of the official MultiGrain's files; test_network.py loads a whole one by torchvision's names."""

import numpy as np
import pytest

from src.checkpoint.weights import WeightsError, load_weights
from src.zoo import create_network
from tests.checkpoint.weights_cases import holds, other_weights, torch_named


def small(**arguments):
    shape = {"block_units": (1, 1, 1, 1), "widths": (4, 4, 8, 8)}
    return create_network("multigrain_resnet18", num_classes=3, **shape, **arguments)


def official(network, prefix="") -> dict[str, np.ndarray]:
    whitening = {"whitening.mean": "whitening.pca.pca_m", "whitening.projection": "whitening.pca.pca_P"}
    named = {}
    for name, array in torch_named(other_weights(network)).items():
        if name.startswith("fc."):
            name = name.replace("fc.", "classifier.")
        elif name in whitening:
            name = whitening[name]
        elif name != "pool.p":
            name = f"features.{name}"
        named[prefix + name] = array
    return named


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("arguments", [{}, {"whitening_dim": 9}, {"learn_pooling_exponent": True}])
def test_official_names(arguments, prefix):
    network = small(**arguments)
    weights = official(network, prefix)
    if "learn_pooling_exponent" not in arguments:
        weights[f"{prefix}pool.p"] = np.array(3.0)
    load_weights(network, weights)
    assert holds(network, other_weights(network))


def test_another_exponent_is_refused():
    network = small(pooling_exponent=1.0)
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    with pytest.raises(WeightsError, match="pools with p = 3, the network with 1; give --pooling_exponent 3"):
        load_weights(network, official(network) | {"pool.p": np.array(3.0)})
    assert holds(network, before)
