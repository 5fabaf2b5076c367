# SPDX-License-Identifier: Apache-2.0
"""onnxruntime as a backend: an ONNX file, ready to run on this machine's CPU. MindSpore is not needed."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import UserError, first_line
from ...model_utils.cpu import thread_count
from ..formats import ANY_BATCH
from ..predict import Opened

_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


def open_onnx(path: str | os.PathLike, *, threads: int = 0) -> Opened:
    """Loads an image classifier: input `images`, outputs `logits` and, where it has it, `embedding`.

    `read_export` has compared its checksum.

    Args:
        path: the file.
        threads: that compute; 0: one for each core that this process may use.

    Raises:
        UserError: onnxruntime is not installed or cannot load the file, it is no such classifier, or as
            `thread_count`.
    """
    path = Path(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "backend: onnxruntime is not installed here; pip install onnxruntime, or export to MINDIR"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count(threads)
    options.log_severity_level = 3  # errors
    # A processor without VNNI saturates sums of int8 products; this has it take other kernels.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise UserError(f"{path}: onnxruntime cannot load this file ({first_line(error)})") from error
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = {one.name: _shape(one) for one in session.get_outputs()}
    if list(inputs) != ["images"] or "logits" not in outputs:
        raise UserError(
            f"{path}: not an image classifier of ours (inputs {list(inputs)}, outputs {list(outputs)}); "
            "export again"
        )
    images = inputs["images"]
    return Opened(
        partial(_run, session, "logits", path),
        _shape(images),
        _TYPES.get(images.type, images.type),
        outputs["logits"],
        partial(_run, session, "embedding", path) if "embedding" in outputs else None,
    )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(side if isinstance(side, int) else ANY_BATCH for side in value.shape)


def _run(session: Any, output: str, path: Path, batch: np.ndarray) -> np.ndarray:
    try:
        return session.run([output], {"images": batch})[0].astype(np.float32, copy=False)
    except Exception as error:  # as above
        raise UserError(f"{path}: onnxruntime cannot run this file ({first_line(error)})") from error
