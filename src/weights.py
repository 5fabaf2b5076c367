"""Weights into a network, strictly: every name and shape must fit, or nothing is changed."""

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

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
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        if path.suffix in (".pth", ".pt"):
            return _read_torch(path)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({error})") from error
    raise WeightsError(f"{path}: known kinds of weights are .ckpt, .npz, .safetensors and .pth")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: reading .pth needs PyTorch; install it or convert to .safetensors"
        ) from error
    return {name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu").items()}


def load_weights(network: nn.Cell, source: str | Path | Mapping[str, np.ndarray]) -> None:
    """Fills all parameters of `network`, its running statistics included.

    Args:
        source: a file (.npz, .safetensors, .pth) or a mapping of name to array, in PyTorch's or our naming.

    Raises:
        WeightsError: the file cannot be read, or names or shapes differ; the network is then unchanged.
    """
    label = "weights" if isinstance(source, Mapping) else str(source)
    weights = from_torch_names(network, source if isinstance(source, Mapping) else _read(Path(source)))
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {tuple(np.shape(weights[name]))}, not {tuple(parameter.shape)}"
        for name, parameter in wanted.items()
        if name in weights and tuple(np.shape(weights[name])) != tuple(parameter.shape)
    ]
    if problems:
        raise WeightsError(f"{label} does not fit the network: {'; '.join(problems)}")
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(np.asarray(weights[name], np.float32)))
