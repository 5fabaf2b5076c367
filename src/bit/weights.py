# SPDX-License-Identifier: Apache-2.0
"""Weights for BiT: found in a folder, known by their variant, and translated to the network's names.

| naming                                   | a unit's first convolution                        |
|------------------------------------------|---------------------------------------------------|
| official .npz (TensorFlow, kernels HWIO) | resnet/block1/unit01/a/standardized_conv2d/kernel |
| official PyTorch                         | body.block1.unit01.conv1.weight                   |
| timm's resnetv2_*_bit                    | stages.0.blocks.0.conv1.weight                    |

The kernels are stored raw in all of them; the network standardises them when it runs.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from .config import BiTConfig

_URL = "https://storage.googleapis.com/bit_models"


def _timm_unit(match: re.Match) -> str:
    """timm counts blocks and units from 0."""
    return f"body.block{int(match[1]) + 1}.unit{int(match[2]) + 1:02d}."


# Whole names, but for timm's units; every name goes through all of them.
_UNIT = r"^resnet/(block\d)/(unit\d\d)/"
_PARTS = ((1, "a"), (2, "b"), (3, "c"))
_RENAMINGS = [
    (r"^resnet/root_block/standardized_conv2d/kernel$", "root.conv.weight"),
    (r"^resnet/head/conv2d/kernel$", "head.conv.weight"),
    (r"^resnet/head/conv2d/bias$", "head.conv.bias"),
    (r"^resnet/group_norm/(gamma|beta)$", r"head.gn.\1"),
    (rf"{_UNIT}a/proj/standardized_conv2d/kernel$", r"body.\1.\2.downsample.weight"),
    *((rf"{_UNIT}{a}/standardized_conv2d/kernel$", rf"body.\1.\2.conv{i}.weight") for i, a in _PARTS),
    *((rf"{_UNIT}{a}/group_norm/(gamma|beta)$", rf"body.\1.\2.gn{i}.\3") for i, a in _PARTS),
    (r"^stem\.conv\.weight$", "root.conv.weight"),
    (r"^head\.fc\.(weight|bias)$", r"head.conv.\1"),
    (r"^norm\.(weight|bias)$", r"head.gn.\1"),
    (r"^stages\.(\d)\.blocks\.(\d+)\.", _timm_unit),
    (r"^(body\..*)\.downsample\.conv\.weight$", r"\1.downsample.weight"),
    (r"^(body\..*)\.norm([123])\.(weight|bias)$", r"\1.gn\2.\3"),
    (r"^(.*\.gn[123]?)\.weight$", r"\1.gamma"),
    (r"^(.*\.gn[123]?)\.bias$", r"\1.beta"),
]


def _own_name(name: str) -> str:
    for pattern, own in _RENAMINGS:
        name = re.sub(pattern, own, name)
    return name


def _structure(shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], float] | None:
    """(units of each block, width factor), or None where the names and shapes do not agree on one."""
    blocks = [f"body.block{number}." for number in (1, 2, 3, 4)]
    units = [{name.split(".")[2] for name in shapes if name.startswith(block)} for block in blocks]
    known = (("root.conv.weight", 64), ("head.gn.gamma", 2048))
    widths = {shapes[name][0] / channels for name, channels in known if shapes.get(name)}
    return (tuple(map(len, units)), widths.pop()) if all(units) and len(widths) == 1 else None


def _name(structure: tuple[tuple[int, ...], float]) -> str:
    units, width = structure
    keys = {"block_units": units, "width_factor": width}
    named = [name for name, variant in BiTConfig.VARIANTS.items() if variant == keys]
    return named[0] if named else f"block_units {list(units)}, width_factor {width:g}"


def translate(
    weights: Mapping[str, np.ndarray], *, block_units: tuple[int, ...], width_factor: float
) -> dict[str, np.ndarray]:
    """The same arrays by the network's names and in its layout (OIHW); names of no known kind stay.

    Args:
        weights: arrays, or what has their `shape` and `transpose`, in any naming of the module's table.
        block_units, width_factor: the network's.

    Raises:
        UserError: the weights are those of another variant, or two of them are the same parameter. The
            message goes on behind the name of the file.
    """
    own = {}
    for name, array in weights.items():
        target = _own_name(name)
        if target in own:
            raise UserError(f"holds {target} twice, once as {name}; leave one of them")
        is_kernel = name.endswith("/kernel") and len(array.shape) == 4
        own[target] = array.transpose(3, 2, 0, 1) if is_kernel else array
    theirs = _structure({name: array.shape for name, array in own.items()})
    ours = (tuple(block_units), width_factor)
    if theirs not in (None, ours):
        mend = f"--model {_name(theirs)}"
        if _name(theirs) not in BiTConfig.VARIANTS:
            mend = f"--block_units {list(theirs[0])} --width_factor {theirs[1]:g}".replace(", ", ",")
        raise UserError(f"holds {_name(theirs)}, the network is {_name(ours)}: use {mend}")
    return own


def find_pretrained(pretrained_path: str | Path, name: str) -> Path:
    """The file of weights: `pretrained_path` itself, or `<name>.npz` in that folder.

    Args:
        name: a published network, as "BiT-M-R50x1" (M: pre-trained on ImageNet-21k, S: on ILSVRC-2012).

    Raises:
        UserError: there is no such file; the message says what there is and where to download it.
    """
    path = Path(pretrained_path)
    if path.is_file():
        return path
    download = f"download {_URL}/{name}.npz"
    if not path.is_dir():
        raise UserError(f"pretrained_path: there is no file or folder {path}; {download}")
    file = path / f"{name}.npz"
    if not file.is_file():
        there = ", ".join(sorted(other.name for other in path.glob("*.npz") if other.is_file())) or "none"
        raise UserError(f"pretrained_path: {path} has no {file.name} (.npz files there: {there}); {download}")
    return file
