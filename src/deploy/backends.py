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
from .formats import format_of
from .predict import Predictor

BACKENDS = ("auto", "mindspore", "lite")


def exported_predictor(flags: argparse.Namespace, rest: Sequence[str] = ()) -> Predictor:
    """`open_predictor` for infer.py. Raises UserError also for the flags of weights."""
    if given := [name for name in ("config_path", "class_names", "raw_weights") if getattr(flags, name)]:
        raise UserError(
            f"{given[0]}: given, which is for weights ({', '.join(READERS)}), and {flags.model_path} is none "
            "of them; leave it out, or give weights"
        )
    how = {name: getattr(flags, name) for name in ("backend", "device_target", "batch_size")}
    return open_predictor(flags.model_path, **how)


def open_predictor(
    path: str | os.PathLike,
    *,
    backend: str = "auto",
    device_target: str = "auto",
    batch_size: int | None = None,
) -> Predictor:
    """A predictor from an export.

    Args:
        path: the folder of the export, or one of its model files.
        backend: one of BACKENDS; auto is lite where it is installed, otherwise mindspore. With lite,
            MindSpore is not imported.
        device_target: auto, Ascend, GPU or CPU; of several devices that of the variable DEVICE_ID.
        batch_size: the largest that is used; None for the largest that the model was exported for.

    Raises:
        UserError: the files are missing, damaged or do not belong together, or the backend is not here.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend: {backend!r} given, allowed: one of {', '.join(BACKENDS)}")
    exported, open_file = read_export(path), None
    if backend == "auto":
        backend = "lite" if lite.is_installed() else "mindspore"
    if backend == "lite":
        device = lite.choose_target(device_target)
        open_file = partial(lite.open_lite, target=device, device_id=get_device_id())
    else:
        from ..model_utils.device_adapter import set_up_device

        device = set_up_device(device_target).target
    opened = [(open_file or format_of(file).open)(file) for file in exported.files]
    return Predictor.from_files(exported, opened, batch_size=batch_size, backend=backend, device=device)
