# SPDX-License-Identifier: Apache-2.0
"""The classifier of a file can be passed over, and a network can bring a naming of its own."""

import numpy as np
import pytest

from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.zoo import create_network
from tests.checkpoint.weights_cases import GroupNormed, arrays_of, holds, other_weights, refused, torch_named


@pytest.fixture
def network():
    return create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))


# --- the head


def _with_head(network, head: str) -> dict[str, np.ndarray]:
    weights = other_weights(network)
    del weights["linear.weight"]
    return (
        weights
        | {
            "same": {"linear.weight": np.full((3, 2), 5, np.float32)},
            "more classes": {"linear.weight": np.full((7, 2), 5, np.float32)},
            "of another kind": {"linear.weight": np.zeros((3, 9)), "linear.bias": np.zeros(3)},
            "none": {},
        }[head]
    )


@pytest.mark.parametrize("theirs", ["same", "more classes", "of another kind", "none"])
@pytest.mark.parametrize("head", ["replace", "zero"])
def test_a_head_that_is_passed_over(network, theirs, head):
    before = arrays_of(network)["linear.weight"]
    assert before.any()
    weights = _with_head(network, theirs)
    load_weights(network, weights, head=head)
    expected = weights | {"linear.weight": before if head == "replace" else 0 * before}
    expected.pop("linear.bias", None)
    assert holds(network, expected)


def test_a_head_that_is_kept(network):
    weights = _with_head(network, "same")
    load_weights(network, weights, head="keep")
    assert holds(network, weights)


@pytest.mark.parametrize("head", ["replace", "zero"])
def test_all_but_the_head_must_fit(network, head):
    weights = _with_head(network, "more classes")
    weights["prep.conv.bias"] = weights.pop("prep.conv.weight")
    assert refused(network, weights, head=head) == (
        "the mapping does not fit the network: missing prep.conv.weight; unexpected prep.conv.bias"
    )


REST = '; head="replace" or "zero" (config key pretrained_head) takes the rest'


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            "more classes",
            "has a head for 7 classes, the network one for 3: linear.weight has shape (7, 2), not (3, 2)",
        ),
        ("none", "fits the network all but its head: missing linear.weight"),
        (
            "of another kind",
            "fits the network all but its head: unexpected linear.bias; "
            "linear.weight has shape (3, 9), not (3, 2)",
        ),
    ],
)
def test_a_head_that_alone_does_not_fit(network, theirs, message):
    assert refused(network, _with_head(network, theirs)) == f"the mapping {message}{REST}"


def test_a_head_of_two_arrays_with_different_counts():
    network = GroupNormed()
    network.head_prefix = "fc."
    weights = other_weights(network)
    weights["fc.bias"] = np.zeros(5)
    message = "has a head for 5 classes, the network one for 3: fc.bias has shape (5,), not (3,)"
    assert refused(network, weights) == f"the mapping {message}{REST}"
    weights["fc.weight"] = np.zeros((4, 4))
    assert "the mapping fits the network all but its head: fc.weight" in refused(network, weights)
    weights["fc.weight"], weights["fc.bias"] = np.zeros((3, 4)), np.array(5)
    assert "the mapping fits the network all but its head: fc.bias has shape ()" in refused(network, weights)
    weights["fc.bias"] = np.zeros(3, complex)
    assert "the mapping fits the network all but its head: fc.bias holds complex" in refused(network, weights)


def test_a_network_that_names_no_head():
    network = GroupNormed()
    load_weights(network, other_weights(network))
    message = refused(network, other_weights(network, 2), head="zero")
    assert message == "head: 'zero' given, but GroupNormed names no head; choose keep"


def test_an_unknown_way_with_the_head(network):
    message = refused(network, other_weights(network), head="drop")
    assert message == "head: 'drop' given; choose one of keep, replace, zero"


# --- a naming of the network's own


class _Translating(GroupNormed):
    head_prefix = "fc."

    def translate_weights(self, weights):
        if "foreign" in weights:
            raise UserError("is of another kind")
        own = {name.replace("classifier/", "fc."): value for name, value in weights.items()}
        return {name: v.transpose(1, 0) if name == "fc.weight" else v for name, v in own.items()}


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("head", ["keep", "replace"])
def test_a_naming_of_the_network_comes_first(tmp_path, from_file, head):
    network = _Translating()
    before, weights = arrays_of(network), other_weights(network)
    source = {name.replace("fc.", "classifier/"): value for name, value in torch_named(weights).items()}
    source["classifier/weight"] = np.ascontiguousarray(source["classifier/weight"].T)
    if from_file:
        np.savez(tmp_path / "a.npz", **source)
    load_weights(network, tmp_path / "a.npz" if from_file else source, head=head)
    kept = {} if head == "keep" else {name: before[name] for name in ("fc.weight", "fc.bias")}
    assert holds(network, weights | kept)


def test_what_the_network_says_of_weights_carries_the_label(tmp_path):
    np.savez(tmp_path / "a.npz", foreign=np.zeros(3))
    assert refused(_Translating(), tmp_path / "a.npz") == f"{tmp_path / 'a.npz'} is of another kind"
