# SPDX-License-Identifier: Apache-2.0
"""Files of weights, ours and others': which kinds there are, how each is read, and which one a path means.

A kind is added by a reader and its row in READERS. MindSpore is imported only when a file of ours is read.
"""

import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..common.files import relative_to

OURS = ".ckpt"


class WeightsError(UserError):
    """Weights do not fit the network. The message names what is missing, unexpected or misshapen."""


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


def is_foreign(path: str | Path) -> bool:
    """Whether a file is of others: it carries neither config nor names of classes. By its suffix alone."""
    return Path(path).suffix.lower() in READERS.keys() - {OURS}


def is_weights(path: str | Path) -> bool:
    """Whether a path means weights, not an exported model: a file of a kind in READERS, or a run's folder."""
    return Path(path).suffix.lower() in READERS or Path(path).is_dir()


def find_weights(path: str | Path) -> Path:
    """The file that a path means: itself, or of a run's folder the best checkpoint, else the last.

    Raises:
        UserError: the folder holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    names = [path / folder / f"{name}{OURS}" for folder in ("checkpoints", "") for name in ("best", "last")]
    for found in names:
        if found.is_file():
            return found
    raise UserError(
        f"{path} is a folder without checkpoints/best.ckpt and last.ckpt{relative_to(path)}; give a .ckpt "
        "file, or the folder of a run"
    )


def check_output(name: str) -> Path:
    """The path of a checkpoint that a command is to write.

    Raises:
        UserError: its suffix is another one.
    """
    if not name.endswith(OURS):
        raise UserError(f"output: {name} given, allowed: a name that ends with {OURS}")
    return Path(name)


def read_weights(path: Path, *, averaged: bool = True) -> tuple[Arrays, bool]:
    """The network's arrays of a file by their names, and whether they are averages of the weights.

    Args:
        path: of a kind in READERS.
        averaged: take the average (EMA) where the file keeps one beside the weights.

    Raises:
        WeightsError: the kind is unknown, there is no such file, or it is damaged. An array that is still in
            its file raises the same when it is read.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise WeightsError(f"{path}: known kinds of weights are {', '.join(READERS)}")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file of weights{relative_to(path)}")
    with _reading(path):
        return read(path, averaged)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # a damaged file makes the libraries raise anything
        raise WeightsError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())}); choose another file"
        ) from error


def _read_ckpt(path: Path, averaged: bool) -> tuple[Arrays, bool]:
    from .file import read_checkpoint

    checkpoint = read_checkpoint(path)
    return checkpoint.network_weights(ema=averaged), checkpoint.has_average and averaged


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _read_npz(path: Path, averaged: bool) -> tuple[Arrays, bool]:
    """One array at a time is in memory, and none twice: the largest file has 4.4 GB."""
    stored = {}
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            with file.open(member) as array:
                shape, _, dtype = _NPY_HEADERS[np.lib.format.read_magic(array)](array)
                size = array.tell() + math.prod(shape) * dtype.itemsize
            if size != member.file_size and not dtype.hasobject:
                raise ValueError(f"{member.filename} has {member.file_size} bytes, not {size}")
            read = partial(_read_npz_array, path, member.filename)
            stored[member.filename.removesuffix(".npy")] = StoredArray(shape, dtype, read)
    return stored, False


def _read_npz_array(path: Path, member: str) -> np.ndarray:
    with _reading(path), zipfile.ZipFile(path) as file, file.open(member) as stored:
        array = np.lib.format.read_array(stored, allow_pickle=False)
        stored.read()  # at the end of the file its checksum is compared
    return array


_SAFETENSORS = {
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": f"<{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)},
    "BOOL": "?",
    "BF16": "<u2",  # the upper half of a float32, which numpy has no type for
}


def _read_safetensors(path: Path, averaged: bool) -> tuple[Arrays, bool]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy"):  # checks the header, and that it covers the file
        pass
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
    header.pop("__metadata__", None)
    stored = {}
    for name, entry in header.items():
        kind, shape = entry["dtype"], tuple(entry["shape"])
        if kind not in _SAFETENSORS:
            raise ValueError(f"{name} holds {kind}")
        read = partial(_read_safetensors_array, path, start + entry["data_offsets"][0], kind, shape)
        dtype = np.dtype("f4" if kind == "BF16" else _SAFETENSORS[kind])
        stored[name] = StoredArray(shape, dtype, read)
    return stored, False


def _read_safetensors_array(path: Path, offset: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    with _reading(path):
        array = np.fromfile(path, _SAFETENSORS[kind], math.prod(shape), offset=offset).reshape(shape)
    return (array.astype("<u4") << 16).view("<f4") if kind == "BF16" else array


# Training scripts keep the weights beside the optimizer's state, and some an average of them.
_STATE = ("state_dict", "model_state_dict", "model", "model_state", "net")
_AVERAGE = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")


def _read_torch(path: Path, averaged: bool) -> tuple[Arrays, bool]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
        ) from error
    try:  # Without weights_only a file can run any code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than arrays, or is damaged; if you trust it, keep its weights alone: "
            f"torch.save(torch.load({path.name!r}, weights_only=False)['state_dict'], 'weights.pth')"
        ) from error
    took_average = False
    while name := next(
        (n for n in (*_AVERAGE * averaged, *_STATE) if isinstance(state.get(n), Mapping)), None
    ):
        state, took_average = state[name], took_average or name in _AVERAGE
    if strange := [name for name, value in state.items() if not hasattr(value, "detach")]:
        raise WeightsError(
            f"{path}: {strange[0]} is no array, and weights are looked for in {', '.join(_STATE)}; "
            "save them alone"
        )
    # PyTorch's bfloat16 has no counterpart in numpy.
    arrays = {name: tensor.detach() for name, tensor in state.items()}
    return {n: (t.float() if t.is_floating_point() else t).numpy() for n, t in arrays.items()}, took_average


READERS = {
    OURS: _read_ckpt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,  # as in model_best.pth.tar
}
