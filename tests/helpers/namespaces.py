# SPDX-License-Identifier: Apache-2.0
"""Two servers on one machine: network namespaces, joined by a cable."""

import contextlib
import os
import shutil
import subprocess

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def why_not() -> str:
    """Why there can be no namespaces here; "" if there can."""
    if not shutil.which("ip"):
        return "there is no command ip (iproute2)"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    probe = f"quartet-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here ({made.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


@contextlib.contextmanager
def two_servers():
    """Yields the words before a command that run it on each of two servers with ADDRESSES."""
    names = [f"quartet{os.getpid()}-{number}" for number in (0, 1)]
    ends = [f"qv{os.getpid()}-{number}" for number in (0, 1)]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            names[1],
        )
        for name, end, address in zip(names, ends, ADDRESSES):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
