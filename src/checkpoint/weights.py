# SPDX-License-Identifier: Apache-2.0
"""Weights into a network, strictly: every name and shape must fit, or nothing is changed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import mindspore as ms
import numpy as np
from mindspore import nn

from ..common.errors import UserError
from .formats import Arrays, StoredArray, WeightsError, read_weights

Head = Literal["keep", "replace", "zero"]

_WRAPPERS = ("module.", "_orig_mod.", "model.")
_SHOWN = 5  # names in an error
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


def without_wrappers(weights: Arrays) -> Arrays:
    """The weights without what PyTorch's wrappers put before every name, in any order, as `module.`.

    They are DataParallel, `torch.compile`, Lightning and AveragedModel, whose counter is left out too.
    """
    weights = {name: array for name, array in weights.items() if name != "n_averaged"}
    while prefix := next((p for p in _WRAPPERS if weights and all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): array for name, array in weights.items()}
    return weights


def _misfits(wanted: Mapping[str, ms.Parameter], weights: Arrays) -> tuple[set[str], str]:
    """The names of all that does not fit, and what is wrong with them in words."""
    both = [(name, tuple(wanted[name].shape), weights[name]) for name in wanted if name in weights]
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    shapes = {n: f"{n} has shape {a.shape}, not {shape}" for n, shape, a in both if a.shape != shape}
    types = {n: f"{n} holds {a.dtype}, not real numbers" for n, _, a in both if a.dtype.kind not in "fiub"}
    problems = [
        f"missing {_first(missing)}" if missing else "",
        f"unexpected {_first(unexpected)}" if unexpected else "",
        _first(shapes.values()),
        _first(types.values()),
    ]
    return {*missing, *unexpected, *shapes, *types}, "; ".join(filter(None, problems))


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


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


def _translated(network: nn.Cell, weights: Arrays, label: str) -> Arrays:
    """The weights by the network's own names and in its layout; what is of no known kind stays."""
    weights = {n: a if isinstance(a, StoredArray) else np.asarray(a) for n, a in weights.items()}
    weights = without_wrappers(weights)
    if hasattr(network, "translate_weights"):
        try:
            weights = network.translate_weights(weights)
        except UserError as error:
            raise WeightsError(f"{label} {error}") from error
    return from_torch_names(network, weights)


def count_classes(network: nn.Cell, weights: Arrays, *, label: str) -> int:
    """The classes of the weights' own classifier: the first axis of its arrays.

    Args:
        network: with any number of classes.
        weights: in any naming that `load_weights` takes.
        label: what the error calls them.

    Raises:
        WeightsError: there is no classifier among them, or they are of another variant of the network.
    """
    weights = _translated(network, weights, label)
    heads = [array.shape for name, array in weights.items() if name.startswith(network.head_prefix)]
    if not all(heads) or not heads:
        raise WeightsError(
            f"{label} holds no classifier ({network.head_prefix}*) among {_first(weights) or 'no arrays'}; "
            "choose weights with one, or rename them"
        )
    return heads[0][0]


def load_weights(
    network: nn.Cell,
    source: str | Path | Mapping[str, np.ndarray],
    *,
    head: Head = "keep",
    mend: str = 'head="replace" or "zero" (config key pretrained_head) takes the rest',
    label: str | None = None,
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
        label: what the error calls the source; None for its path.

    Raises:
        WeightsError: the file cannot be read, names or shapes differ, or a number that would be loaded is not
            finite; the network is then unchanged.
    """
    prefix = getattr(network, "head_prefix", None)
    if head not in get_args(Head):
        raise WeightsError(f"head: {head!r} given; choose one of {', '.join(get_args(Head))}")
    if head != "keep" and prefix is None:
        raise WeightsError(f"head: {head!r} given, but {type(network).__name__} names no head; choose keep")
    label = label or ("the mapping" if isinstance(source, Mapping) else str(source))
    weights = source if isinstance(source, Mapping) else read_weights(Path(source))[0]
    weights = _translated(network, weights, label)
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    passed_over = {}
    if head != "keep":
        passed_over = {name: p for name, p in wanted.items() if name.startswith(prefix)}
        wanted = {name: p for name, p in wanted.items() if name not in passed_over}
        weights = {name: array for name, array in weights.items() if not name.startswith(prefix)}
    names, problems = _misfits(wanted, weights)
    if names:
        what = "does not fit the network"
        if prefix is not None and all(name.startswith(prefix) for name in names):
            what = _class_counts(wanted, weights, names) or "fits the network all but its head"
            problems += f"; {mend}"
        raise WeightsError(f"{label} {what}: {problems}")
    if broken := [name for name in wanted if not np.isfinite(np.asarray(weights[name])).all()]:
        more = f" and {len(broken) - 1} more" if broken[1:] else ""
        raise WeightsError(
            f"{label} holds numbers that are not finite in {broken[0]}{more}; it is damaged, choose another "
            "one"
        )
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(np.ascontiguousarray(weights[name], np.float32)))
    if head == "zero":
        for parameter in passed_over.values():
            parameter.set_data(ms.Tensor(np.zeros(parameter.shape, np.float32)))
