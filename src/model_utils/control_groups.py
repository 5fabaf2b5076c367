# SPDX-License-Identifier: Apache-2.0
"""Linux control groups: what a container grants this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def folders_of(controller: str, *, root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """The folders of this process's groups that have a controller ("cpu", "memory"), from the inner one up.

    Version 2 has one tree for all controllers, version 1 one for each. A group has the limits of all groups
    above it. In a container the path may be the host's, and only the root is seen. Not on Linux: none.
    """
    try:
        groups = [line.split(":", 2)[1:] for line in own.read_text().splitlines()]
    except OSError:
        return
    for controllers, path in groups:
        if controllers == "" or controller in controllers.split(","):
            top = root / controllers
            group = top / path.lstrip("/")
            yield from (group, *group.parents[: len(group.parts) - len(top.parts)])
