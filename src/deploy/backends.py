# SPDX-License-Identifier: Apache-2.0
"""One predictor for an exported model, whichever backend runs it."""

import argparse
import os
from collections.abc import Sequence
from functools import partial

from ..checkpoint.formats import READERS
from ..common.errors import UserError
from ..model_utils.local_adapter import get_device_id
from . import lite
from .exported import read_export
from .formats import FORMATS, Format, format_of
from .predict import Predictor


def backend_names() -> list[str]:
    """What `--backend` takes: auto, and what runs a format."""
    return ["auto", *dict.fromkeys(name for kind in FORMATS.values() if kind.open for name in kind.backends)]


def exported_predictor(flags: argparse.Namespace, rest: Sequence[str] = ()) -> Predictor:
    """`open_predictor` for infer.py. Raises UserError also for the flags of weights."""
    if given := [name for name in ("config_path", "class_names", "raw_weights") if getattr(flags, name)]:
        raise UserError(
            f"{given[0]}: given, which is for weights ({', '.join(READERS)}), and {flags.model_path} is none "
            "of them; leave it out, or give weights"
        )
    how = {name: getattr(flags, name) for name in ("backend", "device_target", "batch_size", "threads")}
    return open_predictor(flags.model_path, **how)


def open_predictor(
    path: str | os.PathLike,
    *,
    backend: str = "auto",
    device_target: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Predictor:
    """A predictor from an export.

    Args:
        path: the folder of the export, one of its model files, or a file that holds its card.
        backend: one of `backend_names()` that runs the format; auto is lite where it is installed and runs
            it, otherwise the format's first. Only mindspore imports MindSpore.
        device_target: auto, Ascend, GPU or CPU; of several devices that of the variable DEVICE_ID.
        batch_size: the largest that is used; None for the largest that the model was exported for, and for
            `predict.BATCH_SIZE` where it takes any.
        threads: that compute; None or 0: one for each core that may be used. MindSpore has settings of its
            own.

    Raises:
        UserError: the files are missing, damaged or do not belong together, or the backend is not here or
            does not run them.
    """
    if backend not in backend_names():
        raise UserError(f"backend: {backend!r} given, allowed: one of {', '.join(backend_names())}")
    exported = read_export(path)
    kind = format_of(exported.files[0])
    backend = _choose(kind, backend)
    if backend in ("mindspore", "lite"):
        if threads is not None:
            raise UserError(f"threads: {threads} given, and {backend} has settings of its own; leave it out")
        if backend == "lite":
            device = lite.choose_target(device_target)
            open_file = partial(lite.open_lite, target=device, device_id=get_device_id())
        else:
            from ..model_utils.device_adapter import set_up_device

            device, open_file = set_up_device(device_target).target, kind.open
    else:
        if device_target not in ("auto", "CPU"):
            raise UserError(f"device_target: {device_target} given, --backend {backend} runs on auto or CPU")
        device, open_file = "CPU", partial(kind.open, threads=threads or 0)
    opened = [open_file(file) for file in exported.files]
    return Predictor.from_files(exported, opened, batch_size=batch_size, backend=backend, device=device)


def _choose(kind: Format, backend: str) -> str:
    if backend == "auto":
        return "lite" if "lite" in kind.backends and lite.is_installed() else kind.backends[0]
    if backend not in kind.backends:
        taken = next(other.name for other in FORMATS.values() if backend in other.backends and other.open)
        raise UserError(
            f"backend: {backend} given, and {kind.suffix} is run by {' or '.join(kind.backends)}; "
            f"leave it out, or export to {taken}"
        )
    return backend
