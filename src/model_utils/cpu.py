# SPDX-License-Identifier: Apache-2.0
"""This machine's CPU: its cores, and what it needs to be told before its first operator runs."""

import contextlib
import logging
import math
import os
from pathlib import Path

from ..common.errors import UserError
from .control_groups import folders_of

MOST_THREADS = 1024  # that compute: many times more than cores take minutes to start, and then all memory
NO_QUOTA = float(1 << 20)
ISA = "ONEDNN_MAX_CPU_ISA"
_DIRECT = "QUARTET_DIRECT_CONVOLUTIONS"  # set with ISA, so that processes started from here are told too


def use_fast_convolutions() -> None:
    """Keeps oneDNN from its reference convolutions, unless the user has set the variable to something else.

    On a processor with AVX-512, MindSpore's plain layouts have no AVX-512 kernel in oneDNN and fall to the
    reference code; limited to AVX2 they find the matrix-product kernel, which was measured 95 times faster
    (64 to 64 channels, 3x3, batch 64, 32x32). oneDNN reads the variable once, at its first operator.

    The networks' own convolutions call oneDNN themselves on such a processor (`layers.onednn`), unless the
    user has set the variable.
    """
    if ISA not in os.environ:
        os.environ[ISA], os.environ[_DIRECT] = "AVX2", "1"
        logging.getLogger("quartet").info("%s=AVX2 set: oneDNN's fast convolutions on this CPU", ISA)


def calls_onednn() -> bool:
    """Whether convolutions may call oneDNN directly: not where the user has chosen its instructions."""
    return _DIRECT in os.environ


def wait_for_slow_ranks() -> None:
    """Gives processes that train together on CPUs ten minutes for each other, unless the user has set it.

    MindSpore ends a collective operator on CPU after 60 s, which a rank needs that compiles, evaluates or
    draws pictures on a busy machine. A process that died is noticed by the launcher long before.
    """
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "600")


def usable_cores() -> int:
    """Cores that this process may use: of its affinity, and of its container's CPU quota, rounded up."""
    return max(1, min(bound_cores(), math.ceil(_quota())))


def bound_cores() -> int:
    """Cores that this process may run on."""
    # Linux can take cores away from a process; elsewhere there is only the number of all.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def shares_of_cores(processes: int) -> list[list[int]]:
    """An equal share of the cores for each of several processes, neighbours together.

    Empty for a single process, and where there are too few cores or none can be taken away (not Linux).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = len(cores) // processes
    if processes == 1 or not share:
        return []
    return [cores[i * share : (i + 1) * share] for i in range(processes)]


def _quota(**where: Path) -> float:
    """Cores' worth of time that the control groups of this process grant; a large number for no limit.

    Version 2 has it in cpu.max ("QUOTA PERIOD"), version 1 in two files of the controller cpu.
    """
    return min(map(_quota_of, folders_of("cpu", **where)), default=NO_QUOTA)


def _quota_of(folder: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
            if quota > 0 and period > 0:
                return quota / period
    return NO_QUOTA


def thread_count(threads: int) -> int:
    """Threads that compute: as many as asked for; 0: one for each core that this process may use.

    Raises:
        UserError: fewer than 0, or more than MOST_THREADS.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise UserError(f"threads: {threads} given, allowed: a whole number from 0 to {MOST_THREADS}")
    return threads or usable_cores()


def worker_count() -> int:
    """Worker threads for data: min(8, cores this process may use)."""
    return min(8, usable_cores())
