# SPDX-License-Identifier: Apache-2.0
"""Weights fit by every name and shape, or the network stays as it was."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from safetensors.numpy import save_file

from src.checkpoint.file import write_checkpoint
from src.checkpoint.weights import from_torch_names, load_weights
from src.zoo import create_network
from tests.checkpoint.weights_cases import GroupNormed, arrays_of, holds, other_weights, refused, torch_named


@pytest.fixture
def network():
    return create_network("resnet9", num_classes=3, widths=(2, 2, 2, 2))


# --- what fits


@pytest.mark.parametrize("naming", [dict, torch_named], ids=["ours", "torch"])
def test_a_mapping_fills_every_parameter(network, naming):
    weights = other_weights(network)
    load_weights(network, naming(weights))
    assert holds(network, weights)


def test_torch_names_are_translated_for_batch_norm_alone(network):
    names = {"prep.bn.weight": 0, "prep.bn.num_batches_tracked": 1, "prep.conv.weight": 2, "a.bn.bias": 3}
    assert from_torch_names(network, names) == {"prep.bn.gamma": 0, "prep.conv.weight": 2, "a.bn.bias": 3}


def test_torch_names_of_group_normalisation():
    network = GroupNormed()
    weights = other_weights(network)
    assert set(weights) == {"gn.gamma", "gn.beta", "fc.weight", "fc.bias"}
    load_weights(network, torch_named(weights))
    assert holds(network, weights)


def test_a_name_in_both_namings_is_one_too_many(network):
    weights = other_weights(network)
    weights["prep.bn.weight"] = weights["prep.bn.gamma"] + 1
    assert refused(network, weights).endswith("does not fit the network: unexpected prep.bn.weight")


def test_other_kinds_of_numbers_become_float32(network):
    weights = {
        name: np.round(value * 100).astype(np.float64) for name, value in other_weights(network).items()
    }
    weights["linear.weight"] = weights["linear.weight"].astype(np.int16)
    load_weights(network, weights)
    assert holds(network, weights)
    assert all(parameter.dtype == ms.float32 for parameter in network.get_parameters())


@pytest.mark.parametrize("naming", [dict, torch_named], ids=["ours", "torch"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_fills_every_parameter(network, tmp_path, suffix, naming, kind):
    weights = other_weights(network)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **naming(weights))
    else:
        save_file(naming(weights), path)
    load_weights(network, kind(path))
    assert holds(network, weights)


def test_a_checkpoint_gives_its_averaged_weights(network, tmp_path):
    raw, averaged = other_weights(network, 1), other_weights(network, 2)
    entries = {**raw, **{f"ema.{name}": value for name, value in averaged.items()}}
    entries["optim.velocity.linear.weight"] = raw["linear.weight"]
    parameters = [ms.Parameter(ms.Tensor(value), name=name) for name, value in entries.items()]
    meta = {"config": {}, "step": 1, "network": list(raw)}
    write_checkpoint(tmp_path / "a.ckpt", parameters, meta)
    load_weights(network, tmp_path / "a.ckpt")
    assert holds(network, averaged)


def test_the_network_keeps_numbers_of_its_own(network):
    weights = other_weights(network)
    source = {name: value.copy() for name, value in weights.items()}
    load_weights(network, source)
    for value in source.values():
        value[...] = 0
    assert holds(network, weights)


def test_an_npz_of_any_memory_order_and_header_version(network, tmp_path):
    weights = other_weights(network)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for i, (name, value) in enumerate(weights.items()):
            with file.open(f"{name}.npy", "w") as member:
                value = np.asfortranarray(value) if i % 2 else value
                np.lib.format.write_array(member, value, version=(1 + i % 3 // 2, 0))
    load_weights(network, tmp_path / "a.npz")
    assert holds(network, weights)


class _Wide(nn.Cell):
    """20 parameters of 1 MB each."""

    head_prefix = "p0"

    def __init__(self):
        super().__init__()
        for i in range(20):
            self.insert_param_to_cell(f"p{i:02d}", ms.Parameter(ms.Tensor(np.zeros((512, 512), np.float32))))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_array_by_array(tmp_path, save):
    network = _Wide()
    weights = {name: np.full((512, 512), i, np.float32) for i, name in enumerate(arrays_of(network))}
    save(tmp_path / "a.npz", **weights)
    tracemalloc.start()
    try:
        load_weights(network, tmp_path / "a.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert holds(network, weights)
    assert peak < 5 << 20


# --- what does not fit


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("stored", [False, True])
def test_numbers_that_are_not_finite_are_refused_by_name(network, tmp_path, value, stored):
    """ReLU makes 0 of NaN: such a network evaluates to a loss like any other."""
    weights = other_weights(network)
    weights["prep.conv.weight"][0, 0] = value
    np.savez(tmp_path / "a.npz", **weights)
    message = refused(network, tmp_path / "a.npz" if stored else weights)
    assert "numbers that are not finite in prep.conv.weight; it is damaged" in message
    weights["linear.weight"][:] = value
    assert "in prep.conv.weight and 1 more" in refused(network, weights)
    assert str(tmp_path / "x.ckpt") in refused(network, weights, label=f"checkpoint {tmp_path / 'x.ckpt'}")


def test_all_that_does_not_fit_is_listed(network):
    weights = other_weights(network)
    del weights["prep.conv.weight"], weights["layer3.bn.moving_mean"]
    weights["linear.weight"] = weights["linear.weight"].T
    weights["layer1.bn.gamma"] = weights["layer1.bn.gamma"][None]
    weights["layer2.conv.weight"] = weights["layer2.conv.weight"].astype(str)
    weights |= {"linear.bias": np.zeros(3), "fc.weight": np.zeros(3)}
    assert refused(network, weights) == (
        "the mapping does not fit the network: missing prep.conv.weight, layer3.bn.moving_mean; "
        "unexpected linear.bias, fc.weight; "
        "layer1.bn.gamma has shape (1, 2), not (2,), linear.weight has shape (2, 3), not (3, 2); "
        "layer2.conv.weight holds <U32, not real numbers"
    )


def test_weights_of_another_number_of_classes(network, tmp_path):
    weights = other_weights(create_network("resnet9", num_classes=4, widths=(2, 2, 2, 2)))
    path = tmp_path / "four.npz"
    np.savez(path, **weights)
    assert refused(network, path).startswith(f"{path} has a head for 4 classes, the network one for 3: ")


def test_of_many_names_the_first_five_and_a_count_are_told(network):
    """Old behaviour: all of them, hundreds in one line."""
    weights = {f"net.{name}": value for name, value in other_weights(network).items()}
    first, count = list(arrays_of(network))[:5], len(weights)
    assert refused(network, weights) == (
        f"the mapping does not fit the network: missing {', '.join(first)} and {count - 5} more; "
        f"unexpected {', '.join(f'net.{name}' for name in first)} and {count - 5} more"
    )
    assert refused(network, {}).endswith(f"missing {', '.join(first)} and {count - 5} more")
    shapes = {name: value[None] for name, value in other_weights(network).items()}
    assert refused(network, shapes).count("has shape") == 5


def test_complex_numbers(network):
    weights = other_weights(network)
    weights["linear.weight"] = weights["linear.weight"] * 1j
    assert "linear.weight holds complex64, not real numbers" in refused(network, weights)


@pytest.mark.parametrize("name", ["none.npz", "none.safetensors", "none.pth", "none.ckpt", "folder.npz"])
def test_a_file_that_is_not_there(network, tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    assert refused(network, tmp_path / name) == f"{tmp_path / name}: there is no such file of weights"


@pytest.mark.parametrize("name", ["weights.h5", "weights"])
def test_a_kind_of_file_that_nobody_knows(network, tmp_path, name):
    (tmp_path / name).write_bytes(b"0")
    message = refused(network, str(tmp_path / name))
    assert (
        message == f"{tmp_path / name}: known kinds of weights are .ckpt, .npz, .safetensors, .pth, .pt, .tar"
    )


def _whole_file(suffix, network, path) -> bytes:
    path = path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **other_weights(network))
    elif suffix == ".safetensors":
        save_file(other_weights(network), path)
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
    assert str(path) in refused(network, path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("where", [0, -1], ids=["first", "last"])
def test_one_damaged_byte_shows_before_anything_is_filled(tmp_path, save, where):
    """In the middle of an array of 1 MB, far from its header."""
    network = _Wide()
    save(tmp_path / "a.npz", **other_weights(network))
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        member = file.infolist()[where]
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[member.header_offset + member.compress_size // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert f"{tmp_path / 'a.npz'}: cannot be read as weights" in refused(network, tmp_path / "a.npz")


@pytest.mark.parametrize("content", ["short", "text"])
def test_an_array_that_is_not_whole_in_a_sound_zip(network, tmp_path, content):
    weights = other_weights(network)
    last = list(weights)[-1]
    np.savez(tmp_path / "a.npz", **{name: value for name, value in weights.items() if name != last})
    array = io.BytesIO()
    np.save(array, weights[last])
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as file:
        file.writestr(f"{last}.npy", array.getvalue()[:-4] if content == "short" else b"hello, " * 9)
    assert "cannot be read as weights" in refused(network, tmp_path / "a.npz")


class _Trap:
    """Running its pickle would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_objects_are_never_unpickled(network, tmp_path):
    weights = other_weights(network)
    weights["prep.conv.weight"] = np.array([_Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "a.npz", **weights)
    assert "prep.conv.weight holds object, not real numbers" in refused(network, tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()
