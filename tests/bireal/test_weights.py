# SPDX-License-Identifier: Apache-2.0
"""Official names and shapes; test_vectors.py loads whole files of them."""

import numpy as np
import pytest

from src.bireal.weights import translate
from src.checkpoint.weights import load_weights
from src.zoo import create_network
from tests.checkpoint.weights_cases import holds, other_weights, refused, torch_named


def small(bottleneck=False):
    shape = {"block_units": (2, 1, 1, 1), "widths": (4, 4, 8, 8)}
    return create_network("birealnet50" if bottleneck else "birealnet18", num_classes=3, **shape)


def official(network) -> dict[str, np.ndarray]:
    named = torch_named(other_weights(network))
    columns = {n.replace("conv.weight", "conv.weights"): n for n in named if "binary_conv.weight" in n}
    return {
        **{n: v for n, v in named.items() if n not in columns.values()},
        **{n: named[old].reshape(-1, 1) for n, old in columns.items()},
    }


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", ["mapping", "npz", "safetensors"])
def test_columns_become_kernels(form, prefix, tmp_path):
    network = small()
    weights = {prefix + name: array for name, array in official(network).items()}
    source = weights
    if form == "npz":
        source = tmp_path / "best.npz"
        np.savez(source, **weights)
    if form == "safetensors":
        from safetensors.numpy import save_file

        source = tmp_path / "best.safetensors"
        save_file(weights, source)
    load_weights(network, source)
    assert holds(network, other_weights(network))


def test_what_birealnet50_never_calls_is_passed_over():
    network = small(bottleneck=True)
    unused = {"layers.0.down_conv1x1.weight": np.zeros((4, 1, 1, 1), np.float32)}
    load_weights(network, {**torch_named(other_weights(network)), **unused})
    assert holds(network, other_weights(network))


def test_a_column_of_another_length_is_refused():
    network = small()
    weights = official(network)
    weights["layer1.0.binary_conv.weights"] = np.zeros((99, 1), np.float32)
    assert "layer1.0.binary_conv.weight has shape (99, 1), not (4, 4, 3, 3)" in refused(network, weights)


def test_unknown_names_stay():
    assert translate({"other": np.zeros(3)}, {}).keys() == {"other"}
