# SPDX-License-Identifier: Apache-2.0
"""Weights of BiT in each naming they are published in, of another variant, and where they are not."""

import numpy as np
import pytest

from src.bit.config import BiTConfig
from src.bit.weights import find_pretrained, translate
from src.checkpoint.weights import load_weights
from src.common.errors import UserError
from src.zoo import create_network
from tests.checkpoint.weights_cases import arrays_of, holds, other_weights, refused

UNITS = (2, 1, 1, 1)
STRUCTURE = {"block_units": UNITS, "width_factor": 0.5}


@pytest.fixture(scope="module")
def built():
    return create_network("bit_r50x1", num_classes=3, pretrained_head="replace", **STRUCTURE)


@pytest.fixture
def network(built):
    """Small, with initial weights that no other test has changed."""
    before = arrays_of(built)
    yield built
    load_weights(built, before)


# --- the namings, name by name as their owners write them


def _official(name: str) -> str:
    if name in FIXED:
        return FIXED[name][0]
    _, block, unit, cell, leaf = name.split(".")
    if cell == "downsample":
        return f"resnet/{block}/{unit}/a/proj/standardized_conv2d/kernel"
    part = {"1": "a", "2": "b", "3": "c"}[cell[-1]]
    within = f"group_norm/{leaf}" if cell.startswith("gn") else "standardized_conv2d/kernel"
    return f"resnet/{block}/{unit}/{part}/{within}"


def _torch(name: str) -> str:
    return name.replace("gamma", "weight").replace("beta", "bias")


def _timm(name: str) -> str:
    if name in FIXED:
        return FIXED[name][1]
    _, block, unit, cell, leaf = _torch(name).split(".")
    cell = "downsample.conv" if cell == "downsample" else cell.replace("gn", "norm")
    stage, number = int(block.removeprefix("block")) - 1, int(unit.removeprefix("unit")) - 1
    return f"stages.{stage}.blocks.{number}.{cell}.{leaf}"


FIXED = {
    "root.conv.weight": ("resnet/root_block/standardized_conv2d/kernel", "stem.conv.weight"),
    "head.gn.gamma": ("resnet/group_norm/gamma", "norm.weight"),
    "head.gn.beta": ("resnet/group_norm/beta", "norm.bias"),
    "head.conv.weight": ("resnet/head/conv2d/kernel", "head.fc.weight"),
    "head.conv.bias": ("resnet/head/conv2d/bias", "head.fc.bias"),
}


def _hwio(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value


def _as_official(weights) -> dict[str, np.ndarray]:
    return {_official(name): _hwio(value) for name, value in weights.items()}


NAMINGS = {
    "official": _as_official,
    "torch": lambda weights: {_torch(name): value for name, value in weights.items()},
    "timm": lambda weights: {_timm(name): value for name, value in weights.items()},
    "ours": dict,
}


def test_the_namings_are_the_published_ones():
    """Names copied from an official file's list and from timm's model: the oracle above against them."""
    assert _official("body.block3.unit12.gn2.beta") == "resnet/block3/unit12/b/group_norm/beta"
    assert _official("body.block1.unit01.conv3.weight") == "resnet/block1/unit01/c/standardized_conv2d/kernel"
    assert _timm("body.block1.unit01.downsample.weight") == "stages.0.blocks.0.downsample.conv.weight"
    assert _timm("body.block3.unit23.gn3.gamma") == "stages.2.blocks.22.norm3.weight"
    assert _torch("body.block4.unit03.gn1.beta") == "body.block4.unit03.gn1.bias"


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_fills_every_parameter(network, tmp_path, naming, from_file):
    weights = other_weights(network)
    source = NAMINGS[naming](weights)
    assert len(source) == len(weights)
    if from_file:
        np.savez(tmp_path / "a.npz", **source)
    load_weights(network, tmp_path / "a.npz" if from_file else source)
    assert holds(network, weights)


@pytest.mark.parametrize("naming", NAMINGS)
def test_translation_alone(network, naming):
    """Two digits count as numbers: unit 10 of timm is our unit 11."""
    weights = {name: np.zeros(p.shape) for name, p in arrays_of(network).items()}
    weights |= {f"body.block3.unit{u:02d}.gn1.beta": np.zeros(3) for u in range(2, 13)}
    translated = translate(NAMINGS[naming](weights), block_units=(2, 1, 12, 1), width_factor=0.5)
    assert {name: v.shape for name, v in translated.items()} == {name: v.shape for name, v in weights.items()}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("head", ["replace", "zero"])
def test_a_pretrained_head_of_many_classes(network, naming, head):
    before = arrays_of(network)
    assert before["head.conv.weight"].any()
    weights = other_weights(network)
    theirs = {"head.conv.weight": np.ones((21843, 1024, 1, 1), np.float32), "head.conv.bias": np.ones(21843)}
    load_weights(network, NAMINGS[naming](weights | theirs), head=head)
    factor = 1 if head == "replace" else 0
    assert holds(network, weights | {name: factor * before[name] for name in theirs})


def test_the_count_of_classes_comes_first_in_the_message(network):
    weights = other_weights(network)
    weights |= {"head.conv.weight": np.ones((7, 1024, 1, 1)), "head.conv.bias": np.ones(7)}
    message = refused(network, _as_official(weights))
    assert message.startswith("the mapping has a head for 7 classes, the network one for 3: head.conv.weight")
    assert message.endswith('head="replace" or "zero" (config key pretrained_head) takes the rest')


# --- what does not fit


def _file(path, weights):
    np.savez(path, **weights)
    return path


def test_a_missing_an_extra_and_a_misshapen_array(network, tmp_path):
    source = _as_official(other_weights(network))
    del source["resnet/block2/unit01/b/standardized_conv2d/kernel"]
    source["resnet/block1/unit01/a/group_norm/gamma"] = np.zeros(5)
    source["resnet/block1/unit01/d/standardized_conv2d/kernel"] = np.zeros((1, 1, 2, 2))
    source["resnet/block1/unit02/c/standardized_conv2d/kernel"] = np.zeros((3, 3, 32, 128))
    source["resnet/head/conv2d/kernel"] = np.zeros((1024, 3))
    path = _file(tmp_path / "a.npz", source)
    assert refused(network, path) == (
        f"{path} does not fit the network: missing body.block2.unit01.conv2.weight; "
        "unexpected resnet/block1/unit01/d/standardized_conv2d/kernel; "
        "body.block1.unit01.gn1.gamma has shape (5,), not (32,), "
        "body.block1.unit02.conv3.weight has shape (128, 32, 3, 3), not (128, 32, 1, 1), "
        "head.conv.weight has shape (1024, 3), not (3, 1024, 1, 1)"
    )


def test_weights_of_another_network_altogether(network):
    message = refused(network, {"conv1.weight": np.zeros((64, 3, 7, 7)), "bn1.weight": np.zeros(64)})
    assert message.endswith(f" and {len(arrays_of(network)) - 5} more; unexpected conv1.weight, bn1.weight")


@pytest.mark.parametrize("root", [(), (48, 3, 7, 7)])
def test_a_root_that_contradicts_the_head_is_misshapen(network, root):
    """One wrong array does not make another variant."""
    weights = other_weights(network) | {"root.conv.weight": np.zeros(root)}
    message = refused(network, weights)
    assert f"does not fit the network: root.conv.weight has shape {root}, not (32, 3, 7, 7)" in message


def test_two_namings_of_one_parameter(network):
    weights = other_weights(network)
    message = refused(network, weights | {"stem.conv.weight": weights["root.conv.weight"]})
    assert message == (
        "the mapping holds root.conv.weight twice, once as stem.conv.weight; leave one of them"
    )


def test_a_truncated_file(network, tmp_path):
    path = _file(tmp_path / "a.npz", _as_official(other_weights(network)))
    path.write_bytes(path.read_bytes()[:-10_000])
    assert f"{path}: cannot be read as weights" in refused(network, path)


def test_a_text_file_with_the_ending_of_weights(network, tmp_path):
    path = tmp_path / "BiT-M-R50x1.npz"
    path.write_text("<Error><Code>AccessDenied</Code></Error>\n")
    assert refused(network, path) == (
        f"{path}: cannot be read as weights (File is not a zip file); choose another file"
    )


# --- variants


def _shapes(units, width) -> dict[str, tuple[int, ...]]:
    shapes = {"root.conv.weight": (int(64 * width), 3, 7, 7), "head.gn.gamma": (int(2048 * width),)}
    for block, count in enumerate(units, start=1):
        shapes |= {f"body.block{block}.unit{unit:02d}.gn1.beta": (1,) for unit in range(1, count + 1)}
    return shapes


@pytest.mark.parametrize("name", BiTConfig.VARIANTS)
def test_published_variants_are_known_by_their_shapes(name):
    arrays = {n: np.zeros(shape) for n, shape in _shapes(*BiTConfig.VARIANTS[name].values()).items()}
    with pytest.raises(UserError, match=rf"^holds {name}, the network is .*: use --model {name}$"):
        translate(arrays, block_units=(1, 1, 1, 1), width_factor=1)


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"root.conv.weight": (64, 3, 7, 7)},
        _shapes((3, 4, 6, 3), 1) | {"head.gn.gamma": (4096,)},
        _shapes((3, 4, 6), 1),
    ],
)
def test_what_is_no_variant_is_left_to_the_check_of_names(shapes):
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
    assert translate(arrays, block_units=(1, 1, 1, 1), width_factor=1).keys() == shapes.keys()


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_file_of_another_variant_is_one_clear_line(network, tmp_path, naming):
    """Instead of hundreds of names."""
    arrays = {name: np.zeros(shape, np.float32) for name, shape in _shapes((3, 4, 23, 3), 3).items()}
    path = _file(tmp_path / "a.npz", NAMINGS[naming](arrays))
    assert refused(network, path) == (
        f"{path} holds bit_r101x3, the network is block_units [2, 1, 1, 1], width_factor 0.5: "
        "use --model bit_r101x3"
    )


def test_a_variant_without_a_name(network):
    arrays = {name: np.zeros(shape) for name, shape in _shapes((1, 2, 1, 1), 1.5).items()}
    with pytest.raises(UserError) as caught:
        translate(arrays, block_units=(3, 4, 6, 3), width_factor=1)
    assert str(caught.value) == (
        "holds block_units [1, 2, 1, 1], width_factor 1.5, the network is bit_r50x1: "
        "use --block_units [1,2,1,1] --width_factor 1.5"
    )


def test_a_list_of_units_is_the_same_variant():
    arrays = {name: np.zeros(shape) for name, shape in _shapes((1, 2, 1, 1), 1.5).items()}
    assert translate(arrays, block_units=[1, 2, 1, 1], width_factor=1.5).keys() == arrays.keys()


# --- where the file is

URL = "https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz"


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_file_is_taken_whatever_its_name(tmp_path, kind):
    (tmp_path / "mine.npz").touch()
    assert find_pretrained(kind(tmp_path / "mine.npz"), "BiT-M-R50x1") == tmp_path / "mine.npz"


def test_a_folder_holds_the_file_by_its_name(tmp_path):
    for name in ("BiT-M-R50x1", "BiT-S-R50x1"):
        (tmp_path / f"{name}.npz").touch()
    assert find_pretrained(tmp_path, "BiT-M-R50x1") == tmp_path / "BiT-M-R50x1.npz"


@pytest.mark.parametrize(("names", "there"), [((), "none"), (("b.npz", "a.npz", "c.txt"), "a.npz, b.npz")])
def test_a_folder_without_it(tmp_path, names, there):
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "BiT-M-R50x1.npz").mkdir()
    with pytest.raises(UserError) as caught:
        find_pretrained(tmp_path, "BiT-M-R50x1")
    assert str(caught.value) == (
        f"pretrained_path: {tmp_path} has no BiT-M-R50x1.npz (.npz files there: {there}); download {URL}"
    )


def test_neither_file_nor_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        find_pretrained(tmp_path / "none", "BiT-M-R50x1")
    assert str(caught.value) == (
        f"pretrained_path: there is no file or folder {tmp_path / 'none'}; download {URL}"
    )
