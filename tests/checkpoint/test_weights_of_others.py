# SPDX-License-Identifier: Apache-2.0
"""Weights as other programs write them: wrapped names, safetensors and PyTorch's files."""

import json
import pickle
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.checkpoint.formats import read_weights
from src.checkpoint.weights import WeightsError, count_classes, load_weights
from src.zoo import create_network
from tests.checkpoint.weights_cases import arrays_of, holds, other_weights, refused, torch_named


@pytest.fixture
def network():
    return create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))


# --- names


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "model.module.model."]
)
def test_what_wrappers_put_before_every_name_is_taken_off(network, prefix):
    """Old behaviour: all names were missing, and all others unexpected."""
    weights = other_weights(network)
    wrapped = {prefix + name: value for name, value in torch_named(weights).items()}
    load_weights(network, wrapped | {"n_averaged": np.array(9)})
    assert holds(network, weights)
    assert count_classes(network, wrapped, label="it") == 3


def test_a_prefix_of_some_names_stays(network):
    weights = other_weights(network)
    weights["module.linear.weight"] = weights.pop("linear.weight")
    assert "unexpected module.linear.weight" in refused(network, weights)
    del weights["module.linear.weight"]
    with pytest.raises(
        WeightsError, match=r"^it holds no classifier \(linear\.\*\) among prep\.conv\.weight, .* more; "
    ):
        count_classes(network, weights, label="it")


SMALL = {
    "resnet9": {"widths": (2, 2, 2, 2)},
    "bit_r50x1": {"block_units": (1, 1, 1, 1), "width_factor": 0.5},
    "birealnet18": {"widths": (4, 4, 8, 8)},
    "multigrain_resnet18": {"widths": (4, 4, 8, 8)},
}


@pytest.mark.parametrize("model", SMALL)
def test_the_classes_of_every_family_are_counted_from_its_head(model):
    """As of BiT's with 21,843 classes; the network that translates the names may have any number."""
    small, seven = (create_network(model, num_classes=count, **SMALL[model]) for count in (1, 7))
    assert count_classes(small, torch_named(arrays_of(seven)), label="it") == 7


# --- safetensors


def test_bfloat16_of_safetensors_is_widened(network, tmp_path):
    """Old behaviour: 'BF16'. Its numbers are the upper halves of those of float32."""
    halves = {name: value.view(np.uint32) >> 16 for name, value in other_weights(network).items()}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, half in halves.items():
        end = len(data) + 2 * half.size
        header[name] = {"dtype": "BF16", "shape": half.shape, "data_offsets": [len(data), end]}
        data += half.astype("<u2").tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    load_weights(network, tmp_path / "a.safetensors")
    assert holds(network, {name: (half << 16).view(np.float32) for name, half in halves.items()})


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_every_kind_of_number_of_safetensors(tmp_path, kind):
    array = np.array([[[1, 0, 3]], [[4, 0, 1]]], kind)
    save_file({"one": array, "none": array[:0], "scalar": np.array(1, kind)}, tmp_path / "a.safetensors")
    arrays, averaged = read_weights(tmp_path / "a.safetensors")
    assert not averaged and arrays["none"].shape == (0, 1, 3) and np.asarray(arrays["scalar"]) == 1
    assert arrays["one"].dtype == array.dtype and (np.asarray(arrays["one"]) == array).all()


# --- PyTorch


class _Tensor:
    """What a tensor of a .pth file offers, with a gradient attached as trained parameters have."""

    def __init__(self, values, *, attached=True, bfloat16=False):
        self.values, self.attached, self.bfloat16 = values, attached, bfloat16

    def detach(self):
        return _Tensor(self.values, attached=False, bfloat16=self.bfloat16)

    def is_floating_point(self):
        return self.bfloat16 or self.values.dtype.kind == "f"

    def float(self):
        return _Tensor(self.values.astype(np.float32), attached=self.attached)

    def numpy(self):
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def _tensors(weights, **how):
    return {name: _Tensor(value, **how) for name, value in torch_named(weights).items()}


@pytest.fixture
def pth_of(tmp_path, monkeypatch):
    """pth_of(state) -> a file that a stand-in for PyTorch reads as `state`, or raises; how it is asked."""
    path = tmp_path / "weights.pth"
    path.touch()

    def make(state):
        seen = {}

        def load(path, **how):
            seen.update(how, path=path)
            if isinstance(state, Exception):
                raise state
            return state

        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))
        return path, seen

    return make


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_pth_file_is_read_without_running_its_code(network, pth_of, bfloat16):
    weights = other_weights(network)
    path, seen = pth_of(_tensors(weights, bfloat16=bfloat16))
    load_weights(network, path)
    assert holds(network, weights)
    assert seen == {"path": path, "map_location": "cpu", "weights_only": True}


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model"], ["model_state"], ["model_state_dict"], ["model", "state_dict"]]
)
def test_a_pth_file_of_a_training_script(network, pth_of, keys):
    weights = other_weights(network)
    state = _tensors(weights)
    for key in reversed(keys):
        state = {"step": 7, "optim": {}, key: state, "model_ema": None}
    path, _ = pth_of(state)
    load_weights(network, path)
    assert holds(network, weights)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_average_of_a_pth_file_is_taken_unless_the_weights_are_asked_for(network, pth_of, key, averaged):
    """Old behaviour: the average was not looked for."""
    path, _ = pth_of(
        {"state_dict": _tensors(other_weights(network, 1)), key: _tensors(other_weights(network, 2))}
    )
    arrays, took_average = read_weights(path, averaged=averaged)
    assert took_average is averaged
    load_weights(network, arrays)
    assert holds(network, other_weights(network, 2 if averaged else 1))


def test_a_pth_file_of_other_things(network, pth_of):
    path, _ = pth_of({"epoch": 7, "weights": _tensors(other_weights(network))})
    assert refused(network, path).startswith(
        f"{path}: epoch is no array, and weights are looked for in state_d"
    )
    path, _ = pth_of(
        pickle.UnpicklingError("Weights only load failed.\nUnsupported global: argparse.Namespace")
    )
    message = refused(network, path)
    assert "if you trust it, keep its weights alone: torch.save(torch.load('weights.pth', " in message


def test_a_pth_file_without_pytorch(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "a.pth"
    path.touch()
    message = refused(network, path)
    assert message == f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
