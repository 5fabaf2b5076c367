# SPDX-License-Identifier: Apache-2.0
"""The processor, memory and disk."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..model_utils.cpu import ISA, bound_cores, usable_cores
from ..model_utils.environment import cpu_name
from ..model_utils.memory import Memory
from .finding import Finding, failure, ok, warning

GIB, MIB = 1 << 30, 1 << 20
QUICKSTART = "the quickstart takes 1.8 GiB"  # benchmarks/records/quickstart.json
LEAST_MEMORY, GOOD_MEMORY = int(1.8 * GIB), 4 * GIB
LEAST_DISK, GOOD_DISK = 256 * MIB, 5 * GIB


def check_processor() -> Finding:
    """Name and cores; a container may grant fewer than there are."""
    usable, bound, there = usable_cores(), bound_cores(), os.cpu_count() or 1
    what = f"{cpu_name()}, {usable} {'core' if usable == 1 else 'cores'}"
    if bound < there:
        what += f" (of {there}; this process may run on {bound})"
    if usable < bound:
        what += f" (the container's quota; {bound} can be seen, and only {usable} are used)"
    return ok("processor", what)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What an x86 processor can do; empty on others."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def check_onednn(flags: set[str], environment: Mapping[str, str] = os.environ) -> Finding:
    """Which instructions oneDNN may use, which decides how fast MindSpore's convolutions are on a CPU."""
    given, best = environment.get(ISA), "avx512f" in flags
    if "avx2" not in flags:
        return ok("oneDNN", "no setting is needed on this processor")
    if given is None:
        own = "; the networks call its AVX-512 kernels themselves" if best else ""
        return ok("oneDNN", f"{ISA} is not set: Quartet sets AVX2{own}")
    if best or given.upper() not in ("AVX2", "ALL", "DEFAULT"):
        slow = "slower" if given.upper() == "AVX2" else "many times slower"
        what = f"{ISA}={given} is set: convolutions are {slow} than need be"
        return warning("oneDNN", what, f"unset {ISA}; Quartet then chooses")
    return ok("oneDNN", f"{ISA}={given}")


def check_memory(memory: Memory) -> Finding:
    """What is available now."""
    what = f"{memory.available / GIB:.1f} GiB available of {memory.limit / GIB:.1f} GiB"
    if memory.limit < memory.total:
        what += f" (the container's limit; the machine has {memory.total / GIB:.1f} GiB)"
    mend = "end other programs, or raise the container's limit"
    if memory.available < LEAST_MEMORY:
        return failure("memory", f"{what}; {QUICKSTART}", mend)
    if memory.available < GOOD_MEMORY:
        mend += "; python -m src.tools.summary MODEL says what a network takes"
        return warning("memory", f"{what}; {QUICKSTART}, the large networks more", mend)
    return ok("memory", what)


def check_disk(output_path: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> Finding:
    """Whether a run could be written to `output_path`, which is not made; a file of 1 MiB is tried."""
    folder = output_path.absolute()
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    mend = "free space, or choose another folder with --output_path"
    if not os.path.isdir(folder):
        return failure("disk", f"{output_path}: {folder} is no folder", "choose another --output_path")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(MIB))
            file.flush()
            os.fsync(file.fileno())
        free = statvfs(folder).f_bavail * statvfs(folder).f_frsize
    except OSError as error:
        return failure("disk", f"{output_path}: cannot write in {folder} ({error.strerror})", mend)
    what = f"{output_path}: {free / GIB:.1f} GiB free in {folder}"
    if free < LEAST_DISK:
        return failure("disk", f"{output_path}: {free / MIB:.0f} MiB free in {folder}", mend)
    if free < GOOD_DISK:
        return warning("disk", f"{what}; checkpoints of the large networks take gigabytes", mend)
    return ok("disk", what)


def check_machine(memory: Memory, output_path: Path) -> Iterator[Finding]:
    """All of this module."""
    yield check_processor()
    yield check_onednn(cpu_flags())
    yield check_memory(memory)
    yield check_disk(output_path)
