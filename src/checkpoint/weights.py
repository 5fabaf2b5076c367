"""Weights into a network, strictly: every name and shape must fit, or nothing is changed."""

import hashlib
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common.errors import UserError
from .file import read_checkpoint

Head = Literal["keep", "replace", "zero"]


class WeightsError(UserError):
    """Weights do not fit the network. The message lists all that is missing, unexpected or misshapen."""


@dataclass(frozen=True)
class StoredArray:
    """An array that is still in its file: shape and type are known, the numbers are read when asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def transpose(self, *axes: int) -> "StoredArray":
        shape = tuple(self.shape[axis] for axis in axes)
        return StoredArray(shape, self.dtype, lambda: self.read().transpose(axes))

    def reshape(self, shape: tuple[int, ...]) -> "StoredArray":
        return StoredArray(shape, self.dtype, lambda: self.read().reshape(shape))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.read(), dtype)


Arrays = Mapping[str, np.ndarray | StoredArray]

_TORCH_LEAF = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_torch_names(network: nn.Cell, weights: Arrays) -> dict[str, np.ndarray | StoredArray]:
    """Renames the arrays of normalisations from PyTorch's names to MindSpore's; others are the same in both.

    A normalisation is known by the network's names: `bn.weight` becomes `bn.gamma` where the network has
    that. PyTorch's counter `num_batches_tracked`, which no formula uses, is left out.
    """
    wanted = {parameter.name for parameter in network.get_parameters()}
    renamed = {}
    for name, value in weights.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked" and f"{prefix}.moving_mean" in wanted:
            continue
        ours = f"{prefix}.{_TORCH_LEAF.get(leaf, leaf)}"
        renamed[ours if ours in wanted and ours not in weights else name] = value
    return renamed


def checksum(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Arrays:
    read = _READERS.get(path.suffix)
    if read is None:
        raise WeightsError(f"{path}: known kinds of weights are {', '.join(_READERS)}")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file of weights")
    try:
        return read(path)
    except UserError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # a damaged file makes the libraries raise anything
        raise WeightsError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())}); choose another file"
        ) from error


def _read_ckpt(path: Path) -> Arrays:
    return read_checkpoint(path).network_weights()


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _read_npz(path: Path) -> Arrays:
    """Checks the checksums of all bytes and reads the shapes, so that filling later meets no damage.

    One array at a time is in memory this way, and none twice: the largest file has 4.4 GB.
    """
    stored = {}
    with zipfile.ZipFile(path) as file:
        if (damaged := file.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")
        for member in file.infolist():
            with file.open(member) as array:
                shape, _, dtype = _NPY_HEADERS[np.lib.format.read_magic(array)](array)
                size = array.tell() + math.prod(shape) * dtype.itemsize
            if size != member.file_size and not dtype.hasobject:
                raise ValueError(f"{member.filename} has {member.file_size} bytes, not {size}")
            name = member.filename.removesuffix(".npy")
            stored[name] = StoredArray(shape, dtype, partial(_read_npz_array, path, name))
    return stored


def _read_npz_array(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_torch(path: Path) -> Arrays:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
        ) from error
    # Without weights_only a file can run any code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in (
        "state_dict",
        "model",
        "model_state",
    ):  # training scripts keep it beside the optimizer's state
        state = state[key] if isinstance(state.get(key), Mapping) else state
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


_READERS = {
    ".ckpt": _read_ckpt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,  # as in model_best.pth.tar
}
FOREIGN_KINDS = tuple(_READERS)[1:]  # all but our own


def _misfits(wanted: Mapping[str, ms.Parameter], weights: Arrays) -> list[tuple[str, str]]:
    """(name, what is wrong with it) of everything that does not fit."""
    both = [(name, tuple(wanted[name].shape), weights[name]) for name in wanted if name in weights]
    return [
        *((name, f"missing {name}") for name in wanted if name not in weights),
        *((name, f"unexpected {name}") for name in weights if name not in wanted),
        *((name, f"{name} has shape {a.shape}, not {shape}") for name, shape, a in both if a.shape != shape),
        *((n, f"{n} holds {a.dtype}, not real numbers") for n, _, a in both if a.dtype.kind not in "fiub"),
    ]


def _class_counts(wanted: Mapping[str, ms.Parameter], weights: Arrays, names: set[str]) -> str | None:
    """How the heads differ, if all that is wrong with `names` is the number of classes, their first axis."""
    counts = set()
    for name in names:
        if name not in wanted or name not in weights:
            return None
        their, our = weights[name].shape, tuple(wanted[name].shape)
        if their == our or not their or their[1:] != our[1:]:
            return None
        counts.add((their[0], our[0]))
    if len(counts) > 1:
        return None
    their, our = counts.pop()
    return f"has a head for {their} classes, the network one for {our}"


def load_weights(
    network: nn.Cell,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    head: Head = "keep",
    mend: str = 'head="replace" or "zero" (config key pretrained_head) takes the rest',
) -> None:
    """Fills all parameters of `network`, its running statistics included.

    A network can bring two things of its own: `head_prefix`, which the names of its classifier begin with,
    and `translate_weights(weights)`, which turns other names and layouts into its own.

    Args:
        source: a file (.ckpt of ours, which gives averaged weights where kept, .npz, .safetensors, .pth) or
            a mapping of name to array, in PyTorch's naming, ours, or one that the network translates.
        head: "keep" takes the classifier of `source`, whose classes must be as many as the network's;
            "replace" passes it over, if there is one, and leaves the network's as it is; "zero" passes it
            over and sets the network's to 0.
        mend: what the error suggests where the head alone does not fit.

    Raises:
        WeightsError: the file cannot be read, or names or shapes differ; the network is then unchanged.
    """
    prefix = getattr(network, "head_prefix", None)
    if head not in get_args(Head):
        raise WeightsError(f"head: {head!r} given; choose one of {', '.join(get_args(Head))}")
    if head != "keep" and prefix is None:
        raise WeightsError(f"head: {head!r} given, but {type(network).__name__} names no head; choose keep")
    label = "the mapping" if isinstance(source, Mapping) else str(source)
    weights = source if isinstance(source, Mapping) else _read(Path(source))
    weights = {n: a if isinstance(a, StoredArray) else np.asarray(a) for n, a in weights.items()}
    if hasattr(network, "translate_weights"):
        try:
            weights = network.translate_weights(weights)
        except UserError as error:
            raise WeightsError(f"{label} {error}") from error
    weights = from_torch_names(network, weights)
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    passed_over = {}
    if head != "keep":
        passed_over = {name: p for name, p in wanted.items() if name.startswith(prefix)}
        wanted = {name: p for name, p in wanted.items() if name not in passed_over}
        weights = {name: array for name, array in weights.items() if not name.startswith(prefix)}
    if misfits := _misfits(wanted, weights):
        names = {name for name, _ in misfits}
        what = "does not fit the network"
        problems = "; ".join(problem for _, problem in misfits)
        if prefix is not None and all(name.startswith(prefix) for name in names):
            what = _class_counts(wanted, weights, names) or "fits the network all but its head"
            problems += f"; {mend}"
        raise WeightsError(f"{label} {what}: {problems}")
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(np.ascontiguousarray(weights[name], np.float32)))
    if head == "zero":
        for parameter in passed_over.values():
            parameter.set_data(ms.Tensor(np.zeros(parameter.shape, np.float32)))
