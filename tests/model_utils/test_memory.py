# SPDX-License-Identifier: Apache-2.0
"""Memory: what the machine has, and what control groups leave of it."""

import pytest

from src.model_utils.memory import memory

MIB = 1 << 20
NO_LIMIT_V1 = 9223372036854771712


def of(tmp_path, groups, files):
    (tmp_path / "own").write_text(groups + "\n")
    (tmp_path / "meminfo").write_text("MemTotal:  1024000 kB\nMemFree: 7 kB\nMemAvailable:  512000 kB\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return memory(meminfo=tmp_path / "meminfo", root=tmp_path, own=tmp_path / "own")


@pytest.mark.parametrize(
    ("groups", "files", "limit", "available"),
    [
        ("0::/", {}, 1000, 500),
        ("0::/", {"memory.max": "max", "memory.current": 0}, 1000, 500),
        ("0::/", {"memory.max": 300 * MIB, "memory.current": 200 * MIB}, 300, 100),
        ("0::/", {"memory.max": 300 * MIB, "memory.current": 200 * MIB,
                  "memory.stat": f"anon 5\ninactive_file {50 * MIB}"}, 300, 150),
        ("0::/a/b", {"a/memory.max": 200 * MIB, "a/memory.current": 250 * MIB,
                     "a/b/memory.max": "max"}, 200, 0),
        ("4:memory:/x\n0::/", {"memory/x/memory.limit_in_bytes": 400 * MIB,
                               "memory/x/memory.usage_in_bytes": 100 * MIB,
                               "memory/x/memory.stat": f"inactive_file 0\ntotal_inactive_file {20 * MIB}",
                               "memory/memory.limit_in_bytes": NO_LIMIT_V1,
                               "memory/memory.usage_in_bytes": 1}, 400, 320),
    ],
)  # fmt: skip
def test_the_least_limit_counts(tmp_path, groups, files, limit, available):
    found = of(tmp_path, groups, files)
    assert found.total == 1000 * MIB
    assert (found.limit // MIB, found.available // MIB) == (limit, available)


def test_this_machine():
    found = memory()
    assert 0 < found.available <= found.limit <= found.total
