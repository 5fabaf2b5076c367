"""Files of weights, ours and others': which kinds there are, how each is read, and which one a path means.

A kind is added by a reader and its row in READERS. MindSpore is imported only when a file of ours is read.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..common.files import relative_to

OURS = ".ckpt"


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


def is_foreign(path: str | Path) -> bool:
    """Whether a file is of others: it carries neither config nor names of classes. By its suffix alone."""
    return Path(path).suffix in READERS.keys() - {OURS}


def is_ours(path: str | Path) -> bool:
    """Whether a path means a checkpoint of ours: a .ckpt file, or a run's folder."""
    return Path(path).suffix == OURS or Path(path).is_dir()


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


def read_weights(path: Path) -> Arrays:
    """The arrays of a file by their names: of ours, the network's alone, averaged where kept.

    Raises:
        WeightsError: the kind is unknown, there is no such file, or it is damaged.
    """
    read = READERS.get(path.suffix)
    if read is None:
        raise WeightsError(f"{path}: known kinds of weights are {', '.join(READERS)}")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file of weights{relative_to(path)}")
    try:
        return read(path)
    except UserError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # a damaged file makes the libraries raise anything
        raise WeightsError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())}); choose another file"
        ) from error


def _read_ckpt(path: Path) -> Arrays:
    from .file import read_checkpoint

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


READERS = {
    OURS: _read_ckpt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,  # as in model_best.pth.tar
}
