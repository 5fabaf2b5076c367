# SPDX-License-Identifier: Apache-2.0
"""All that is looked at, in the order of the report."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model_utils.memory import memory
from ..parallel.launch import checks
from . import gpu, software
from .ascend import check_ascend
from .data import check_data
from .finding import Finding
from .framework import check_mindspore, try_mindspore
from .links import check_links
from .machine import check_machine


def examine(
    *,
    device_target: str = "auto",
    cards: int = 0,
    output_path: Path = Path("runs"),
    data_path: Path | None = None,
) -> list[Finding]:
    """Looks at this machine. Nothing stays changed.

    Args:
        device_target: where a training is to run: auto, Ascend, GPU or CPU.
        cards: of this server that train together; 0: all that are there.
        output_path: the folder that runs are written to; it need not be there.
        data_path: of a training; None: it is not looked at.
    """
    wanted = software.pinned()
    found = software.installed(wanted)
    findings = [*software.check_python(), *software.check_packages(wanted, found)]
    tried: Mapping[str, Any] = {}
    if found.get("mindspore"):
        tried = try_mindspore(device_target)
        findings.append(check_mindspore(tried, device_target))
    if device_target in ("auto", "Ascend"):
        findings += check_ascend(device_target == "Ascend")
    if device_target in ("auto", "GPU"):
        findings += gpu.check_gpu(device_target == "GPU")
        if tried:
            findings += gpu.check_use(device_target == "GPU", tried.get("target"))
    findings += check_machine(memory(), output_path)
    if data_path is not None:
        findings.append(check_data(data_path))
    target = _target_of(device_target, tried.get("target"))
    count = cards or (1 if target == "CPU" else len(checks.visible_cards(target)))
    if count > 1 or os.environ.get("NODE_NUM") or os.environ.get("RANK_TABLE_FILE"):
        findings += check_links(target, count)
    return findings


def _target_of(asked: str, used: str | None) -> str:
    """Where a training would run: what is asked for, what MindSpore took, or what is there."""
    if asked != "auto":
        return asked
    return used or next((target for target in checks.VISIBLE if checks.visible_cards(target)), "CPU")
