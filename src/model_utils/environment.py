# SPDX-License-Identifier: Apache-2.0
"""Where this process runs, for the records: processor, memory, system and versions."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from .cpu import usable_cores


def environment() -> dict[str, Any]:
    """Where this process runs: processor, cores it may use, memory in GiB, system and versions.

    A package that is not installed has the version None.
    """
    return {
        "cpu": cpu_name(),
        "cpu_count": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "os": platform.platform(),
        "python": platform.python_version(),
        "mindspore": version_of("mindspore"),
        "numpy": version_of("numpy"),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or its architecture where the system does not tell."""
    # ARM kernels write no model name, and systems other than Linux have no such file.
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    """The version of an installed package, which is not imported; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory_mib() -> float:
    """The most memory this process has held so far (peak resident set size), MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes a unit of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
