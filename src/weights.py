"""Weights into a network, strictly: every name and shape must fit, or nothing is changed."""

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from src.checkpoint_file import read_checkpoint
from src.model_utils.errors import UserError


class WeightsError(UserError):
    """Weights do not fit the network. The message lists all that is missing, unexpected or misshapen."""


_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_torch_names(network: nn.Cell, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames batch-norm arrays from PyTorch's names to MindSpore's; other names are the same in both.

    Names that are MindSpore's already stay as they are, and PyTorch's counter `num_batches_tracked`, which
    no formula uses, is left out.
    """
    norms = {name for name, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)}
    renamed = {}
    for name, value in weights.items():
        prefix, _, leaf = name.rpartition(".")
        if prefix in norms and leaf == "num_batches_tracked":
            continue
        renamed[f"{prefix}.{_BATCH_NORM[leaf]}" if prefix in norms and leaf in _BATCH_NORM else name] = value
    return renamed


def _read(path: Path) -> dict[str, np.ndarray]:
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


def _read_ckpt(path: Path) -> dict[str, np.ndarray]:
    return read_checkpoint(path).network_weights()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
        ) from error
    # Without weights_only a file can run any code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


_READERS = {
    ".ckpt": _read_ckpt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
}


def load_weights(network: nn.Cell, source: str | Path | Mapping[str, np.ndarray]) -> None:
    """Fills all parameters of `network`, its running statistics included.

    Args:
        source: a file (.ckpt of ours, which gives averaged weights where kept, .npz, .safetensors, .pth) or
            a mapping of name to array, in PyTorch's or our naming.

    Raises:
        WeightsError: the file cannot be read, or names or shapes differ; the network is then unchanged.
    """
    label = "the mapping" if isinstance(source, Mapping) else str(source)
    weights = source if isinstance(source, Mapping) else _read(Path(source))
    weights = {name: np.asarray(value) for name, value in from_torch_names(network, weights).items()}
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {weights[name].shape}, not {tuple(parameter.shape)}"
        for name, parameter in wanted.items()
        if name in weights and weights[name].shape != tuple(parameter.shape)
    ]
    problems += [
        f"{name} holds {weights[name].dtype}, not real numbers"
        for name in wanted
        if name in weights and weights[name].dtype.kind not in "fiub"
    ]
    if problems:
        raise WeightsError(f"{label} does not fit the network: {'; '.join(problems)}")
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(weights[name].astype(np.float32)))
