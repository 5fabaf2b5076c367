# SPDX-License-Identifier: Apache-2.0
"""oneDNN is told to use AVX2 before the first operator, unless the user has said otherwise."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.model_utils import cpu
from src.model_utils.cpu import use_fast_convolutions

ROOT = Path(__file__).parents[2]
VARIABLE = "ONEDNN_MAX_CPU_ISA"

CONVOLUTION = """
import mindspore as ms
import numpy as np
from src.zoo import create_network
ms.set_device("CPU")
network = create_network("resnet9", num_classes=2, widths=(4, 4, 4, 4))
network(ms.Tensor(np.zeros((1, 3, 32, 32), np.float32))).asnumpy()
"""


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}


@pytest.fixture
def variable(monkeypatch):
    """variable(value) sets the variable, None removes it; it is put back at the end."""

    def put(value):
        monkeypatch.setenv(VARIABLE, value or "")
        if value is None:
            del os.environ[VARIABLE]

    return put


def test_it_is_set_once_and_said_once(variable, caplog):
    variable(None)
    with caplog.at_level(logging.INFO, "quartet"):
        use_fast_convolutions()
        use_fast_convolutions()
    assert os.environ[VARIABLE] == "AVX2"
    assert [record.getMessage() for record in caplog.records] == [
        "ONEDNN_MAX_CPU_ISA=AVX2 set: oneDNN's fast convolutions on this CPU"
    ]


@pytest.mark.parametrize("value", ["AVX512_CORE", "DEFAULT", "AVX2"])
def test_what_the_user_has_set_stays(variable, caplog, value):
    variable(value)
    with caplog.at_level(logging.INFO, "quartet"):
        use_fast_convolutions()
    assert os.environ[VARIABLE] == value
    assert not caplog.records


@pytest.mark.skipif("avx2" not in _flags(), reason="this CPU has no AVX2 to be limited to")
@pytest.mark.parametrize(("set_by_user", "used"), [(None, "isa:Intel AVX2"), ("SSE41", "isa:Intel SSE4.1")])
def test_the_first_operator_sees_it(set_by_user, used):
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    environment.pop(VARIABLE, None)
    if set_by_user:
        environment[VARIABLE] = set_by_user
    ended = subprocess.run(
        [sys.executable, "-c", CONVOLUTION], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stdout.splitlines() if "isa:" in line]
    assert len(said) == 1 and said[0].endswith(used)
    assert any("convolution" in line and "exec" in line for line in ended.stdout.splitlines())


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {"cpu.max": "40000 100000"}, 0.4),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/host/x", {"cpu.max": "300000 100000"}, 3),
        ("4:cpu,cpuacct:/a\n3:memory:/\n0::/", {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
                                                "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 2.5),
        ("1:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "2"}, None),
    ],
)  # fmt: skip
def test_the_quota_of_a_container_is_read(tmp_path, groups, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(groups + "\n")
    assert cpu._quota(root=tmp_path, own=tmp_path / "own") == (cores or cpu.NO_QUOTA)


def test_cores_are_those_of_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for quota, cores in ((0.4, 1), (1.5, 2), (8, 4), (cpu.NO_QUOTA, 4)):
        monkeypatch.setattr(cpu, "_quota", lambda quota=quota: quota)
        assert cpu.usable_cores() == cores
    assert cpu.bound_cores() == 4
