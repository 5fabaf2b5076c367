# SPDX-License-Identifier: Apache-2.0
"""When and where a run was started and resumed, in RUN/starts.json."""

import time
from pathlib import Path
from typing import Any

from ..common.files import read_json, write_json
from ..model_utils.device_adapter import Device
from ..model_utils.environment import environment

NAME = "starts.json"


def add_start(run_dir: Path, *, place: dict[str, int | float], batch: int, device: Device) -> None:
    """Notes that a process begins to train this run, or goes on with it.

    Args:
        place: images, step and epoch where it begins.
        batch: images of a batch, over all cards.
        device: of this process.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    start: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        **place,
        "batch": batch,
        "device": {"target": device.target, "cards": device.size},
        "environment": environment(),
    }
    path = run_dir / NAME
    write_json(path, [*(read_json(path) or []), start])
