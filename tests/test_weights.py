"""Weights fit by every name and shape, or the network stays as it was."""

import sys
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint_file import write_checkpoint
from src.model_utils.errors import UserError
from src.weights import WeightsError, from_torch_names, load_weights
from src.zoo import create_network

TORCH_LEAF = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@pytest.fixture
def network():
    return create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))


def _arrays(network) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def _weights(network, seed=1) -> dict[str, np.ndarray]:
    """Other numbers for every parameter, running statistics included."""
    rng = np.random.default_rng(seed)
    return {p.name: rng.uniform(0.5, 2, p.shape).astype(np.float32) for p in network.get_parameters()}


def _torch_named(weights) -> dict[str, np.ndarray]:
    named = {}
    for name, value in weights.items():
        prefix, _, leaf = name.rpartition(".")
        named[f"{prefix}.{TORCH_LEAF.get(leaf, leaf)}"] = value
        if leaf == "moving_variance":
            named[f"{prefix}.num_batches_tracked"] = np.array(7)
    return named


def _equal(network, weights) -> bool:
    arrays = _arrays(network)
    return arrays.keys() == weights.keys() and all((arrays[name] == weights[name]).all() for name in arrays)


# --- what fits


@pytest.mark.parametrize("naming", [dict, _torch_named], ids=["ours", "torch"])
def test_a_mapping_fills_every_parameter(network, naming):
    weights = _weights(network)
    load_weights(network, naming(weights))
    assert _equal(network, weights)


def test_torch_names_are_translated_for_batch_norm_alone(network):
    names = {"prep.bn.weight": 0, "prep.bn.num_batches_tracked": 1, "prep.conv.weight": 2, "a.bn.bias": 3}
    assert from_torch_names(network, names) == {"prep.bn.gamma": 0, "prep.conv.weight": 2, "a.bn.bias": 3}


def test_other_kinds_of_numbers_become_float32(network):
    weights = {name: np.round(value * 100).astype(np.float64) for name, value in _weights(network).items()}
    weights["linear.weight"] = weights["linear.weight"].astype(np.int16)
    load_weights(network, weights)
    assert _equal(network, weights)
    assert all(parameter.dtype == ms.float32 for parameter in network.get_parameters())


def _save_safetensors(path, arrays):
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)


@pytest.mark.parametrize("naming", [dict, _torch_named], ids=["ours", "torch"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_fills_every_parameter(network, tmp_path, suffix, naming, kind):
    weights = _weights(network)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **naming(weights))
    else:
        _save_safetensors(path, naming(weights))
    load_weights(network, kind(path))
    assert _equal(network, weights)


def test_a_checkpoint_gives_its_averaged_weights(network, tmp_path):
    raw, averaged = _weights(network, 1), _weights(network, 2)
    entries = {**raw, **{f"ema.{name}": value for name, value in averaged.items()}}
    entries["optim.velocity.linear.weight"] = raw["linear.weight"]
    parameters = [ms.Parameter(ms.Tensor(value), name=name) for name, value in entries.items()]
    write_checkpoint(tmp_path / "a.ckpt", parameters, {"config": {}, "step": 1})
    load_weights(network, tmp_path / "a.ckpt")
    assert _equal(network, averaged)


class _TorchTensor:
    """What a tensor of a .pth file offers, with a gradient attached as trained parameters have."""

    def __init__(self, values, attached=True):
        self.values, self.attached = values, attached

    def detach(self):
        return _TorchTensor(self.values, attached=False)

    def numpy(self):
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.values


def test_a_pth_file_is_read_without_running_its_code(network, tmp_path, monkeypatch):
    weights = _weights(network)
    seen = {}

    def load(path, **how):
        seen.update(how, path=path)
        return {name: _TorchTensor(value) for name, value in _torch_named(weights).items()}

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=load))
    path = tmp_path / "weights.pth"
    path.touch()
    load_weights(network, path)
    assert _equal(network, weights)
    assert seen == {"path": path, "map_location": "cpu", "weights_only": True}


# --- what does not fit


def _refused(network, source) -> str:
    """The message; the network must be as it was."""
    before = _arrays(network)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, source)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert len(message.splitlines()) == 1
    assert _equal(network, before)
    return message


def test_all_that_does_not_fit_is_listed(network):
    weights = _weights(network)
    del weights["prep.conv.weight"], weights["layer3.bn.moving_mean"]
    weights["linear.weight"] = weights["linear.weight"].T
    weights["layer1.bn.gamma"] = weights["layer1.bn.gamma"][None]
    weights["layer2.conv.weight"] = weights["layer2.conv.weight"].astype(str)
    weights |= {"linear.bias": np.zeros(3), "fc.weight": np.zeros(3)}
    assert _refused(network, weights) == (
        "the mapping does not fit the network: missing prep.conv.weight; missing layer3.bn.moving_mean; "
        "unexpected linear.bias; unexpected fc.weight; "
        "layer1.bn.gamma has shape (1, 2), not (2,); linear.weight has shape (2, 3), not (3, 2); "
        "layer2.conv.weight holds <U32, not real numbers"
    )


def test_weights_of_another_number_of_classes(network, tmp_path):
    weights = _weights(create_network("resnet9", num_classes=4, widths=(2, 2, 2, 2)))
    path = tmp_path / "four.npz"
    np.savez(path, **weights)
    message = _refused(network, path)
    assert message == f"{path} does not fit the network: linear.weight has shape (4, 2), not (3, 2)"


def test_nothing_at_all(network):
    assert _refused(network, {}).count("missing ") == len(_arrays(network))


def test_complex_numbers(network):
    weights = _weights(network)
    weights["linear.weight"] = weights["linear.weight"] * 1j
    assert "linear.weight holds complex64, not real numbers" in _refused(network, weights)


@pytest.mark.parametrize("name", ["none.npz", "none.safetensors", "none.pth", "none.ckpt", "folder.npz"])
def test_a_file_that_is_not_there(network, tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    assert _refused(network, tmp_path / name) == f"{tmp_path / name}: there is no such file of weights"


@pytest.mark.parametrize("name", ["weights.h5", "weights", "weights.NPZ"])
def test_a_kind_of_file_that_nobody_knows(network, tmp_path, name):
    (tmp_path / name).write_bytes(b"0")
    message = _refused(network, str(tmp_path / name))
    assert message == f"{tmp_path / name}: known kinds of weights are .ckpt, .npz, .safetensors, .pth, .pt"


def _whole_file(suffix, network, path) -> bytes:
    path = path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **_weights(network))
    elif suffix == ".safetensors":
        _save_safetensors(path, _weights(network))
    else:
        parameters = list(network.get_parameters())
        write_checkpoint(path, parameters, {"config": {}, "step": 1})
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("damage", ["empty", "text", "half", "array", "flipped"])
def test_a_damaged_file(network, tmp_path, suffix, damage):
    whole = _whole_file(suffix, network, tmp_path)
    path = tmp_path / f"weights{suffix}"
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        flipped = bytearray(whole)
        for i in range(8, 64):
            flipped[i] ^= 0xA5
        content = {"empty": b"", "text": b"hello, " * 9, "half": whole[: len(whole) // 2], "flipped": flipped}
        path.write_bytes(content[damage])
    assert str(path) in _refused(network, path)


def test_objects_are_never_unpickled(network, tmp_path):
    weights = _weights(network)
    weights["linear.weight"] = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "a.npz", **weights)
    assert "cannot be read as weights" in _refused(network, tmp_path / "a.npz")


def test_a_pth_file_without_pytorch(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "a.pth"
    path.touch()
    message = _refused(network, path)
    assert message == f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
