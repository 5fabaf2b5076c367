# SPDX-License-Identifier: Apache-2.0
"""MindSpore Lite as a backend: on Ascend 310, or by its CPU build. MindSpore itself is not needed.

The package `mindspore_lite` is on no public index for this Python; its wheel is among the downloads of
MindSpore Lite ("cloud-side"). It is imported only when it is asked for. It must be as new as the MindSpore
that exported: version 2.0.0 refuses what 2.10 writes ("mind ir version: 3").
"""

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from ..common.errors import UserError, first_line
from .predict import Opened

TARGETS = ("Ascend", "CPU")
_OTHER = "--backend mindspore runs the same file"
_DOWNLOADS = "https://www.mindspore.cn/lite/docs/en/r2.10.0/use/downloads.html"
_DEVICES = Path("/dev")


def is_installed() -> bool:
    """Whether Python finds the package; it is not imported."""
    return importlib.util.find_spec("mindspore_lite") is not None


def choose_target(device_target: str) -> str:
    """auto is Ascend where the driver shows such a device, otherwise CPU.

    Raises:
        UserError: MindSpore Lite does not run there.
    """
    if device_target == "auto":
        return "Ascend" if any(_DEVICES.glob("davinci[0-9]*")) else "CPU"
    if device_target not in TARGETS:
        raise UserError(f"device_target: {device_target} given, --backend lite runs on auto, Ascend or CPU")
    return device_target


def open_lite(path: Path, *, target: str, device_id: int) -> Opened:
    """Loads an exported MINDIR file into MindSpore Lite; `read_export` has compared its checksum.

    Args:
        path: a file of fixed batch size.
        target: one of TARGETS.
        device_id: which one, with Ascend.

    Raises:
        UserError: the package is missing, or the file cannot be loaded there.
    """
    lite = _package()
    try:
        context = lite.Context()
        context.target = [target.lower()]
        if target == "Ascend":
            context.ascend.device_id = device_id
        model = lite.Model()
        model.build_from_file(str(path), lite.ModelType.MINDIR, context)
        (images,) = model.get_inputs()
        shape, input_type = tuple(images.shape), images.dtype.name.lower()
    except (RuntimeError, TypeError, ValueError) as error:
        device = f"{target} {device_id}" if target == "Ascend" else target
        raise UserError(
            f"{path}: MindSpore Lite cannot load this file on {device} ({first_line(error)}); "
            f"it must be as new as the MindSpore that exported; {_OTHER}"
        ) from error
    return Opened(partial(_run, model, images, path), shape, input_type)


def _run(model, images, path: Path, batch: np.ndarray) -> np.ndarray:
    try:
        images.set_data_from_numpy(batch)
        (logits,) = model.predict([images])
        return np.array(logits.get_data_to_numpy(), np.float32)  # a copy: the next call may reuse the memory
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: MindSpore Lite cannot run this file ({first_line(error)}); {_OTHER}"
        ) from error


def _package() -> ModuleType:
    if not is_installed():
        raise UserError(
            "backend: lite needs the package mindspore_lite, which is not installed here; "
            f"install its wheel from {_DOWNLOADS}, or use another backend: {_OTHER}"
        )
    try:
        import mindspore_lite
    except (ImportError, OSError) as error:
        raise UserError(
            f"backend: mindspore_lite is installed but cannot be imported ({first_line(error)}); "
            f"on Ascend, source CANN's set_env.sh first; {_OTHER}"
        ) from error
    return mindspore_lite
