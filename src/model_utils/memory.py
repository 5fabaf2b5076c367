# SPDX-License-Identifier: Apache-2.0
"""This machine's memory, and the part of it that its container grants. All numbers are bytes."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from .control_groups import folders_of

# Limit, use, and the key of memory.stat for what the system can take back; of version 2 and version 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    Attributes:
        total: of the machine.
        limit: what this process may use at most: `total`, or the container's limit if that is less.
        available: what it could use now, without swapping.
    """

    total: int
    limit: int
    available: int


def memory(*, meminfo: Path = Path("/proc/meminfo"), **where: Path) -> Memory:
    """What there is now. `where`: see `control_groups.folders_of`."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = total
    with contextlib.suppress(OSError, ValueError):
        facts = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (1024 * int(facts[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    limit = total
    for folder in folders_of("memory", **where):
        of_group, used = _of_group(folder)
        if of_group is not None:
            limit, available = min(limit, of_group), min(available, max(0, of_group - used))
    return Memory(total, limit, available)


def _of_group(folder: Path) -> tuple[int | None, int]:
    """The limit of a control group, None for none, and what it uses, without what can be taken back."""
    for limit, used, reclaimable in _FILES:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            most = int((folder / limit).read_text())
            return most, max(0, int((folder / used).read_text()) - _stat(folder, reclaimable))
    return None, 0


def _stat(folder: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
