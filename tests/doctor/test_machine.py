# SPDX-License-Identifier: Apache-2.0
"""The processor, memory and disk of machines that are made up, and the disk of this one."""

import errno
import json
import os
from types import SimpleNamespace

import pytest

from benchmarks.record import RECORDS
from src.doctor import machine
from src.doctor.machine import GIB, MIB, check_disk, check_memory, check_onednn, check_processor, cpu_flags
from src.model_utils.memory import Memory


def test_a_quota_and_an_affinity_are_said(monkeypatch):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "bound_cores", lambda: 8)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    what = check_processor().what
    assert ", 1 core (of 64; this process may run on 8) (the container's quota; 8 can be seen" in what


def test_flags_are_those_of_the_first_core(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\nflags\t: none\n")
    assert {"avx2", "avx512f"} <= cpu_flags(tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_flags(tmp_path / "cpuinfo") == cpu_flags(tmp_path / "nowhere") == set()


@pytest.mark.parametrize(
    ("flags", "value", "state", "said"),
    [
        (set(), "AVX2", "ok", "no setting is needed"),
        ({"avx2"}, None, "ok", "Quartet sets AVX2"),
        ({"avx2", "avx512f"}, None, "ok", "AVX-512 kernels themselves"),
        ({"avx2"}, "avx2", "ok", "=avx2"),
        ({"avx2"}, "SSE41", "warning", "many times slower"),
        ({"avx2", "avx512f"}, "AVX2", "warning", "are slower than need be"),
        ({"avx2", "avx512f"}, "AVX512_CORE", "warning", "many times slower"),
    ],
)
def test_the_setting_of_onednn(flags, value, state, said):
    finding = check_onednn(flags, {} if value is None else {machine.ISA: value})
    assert finding.state == state and said in finding.what
    assert bool(finding.mend) == (state != "ok")


@pytest.mark.parametrize(("available", "state"), [(0, "failure"), (2, "warning"), (8, "ok")])
def test_memory(available, state):
    finding = check_memory(Memory(total=64 * GIB, limit=16 * GIB, available=available * GIB))
    assert finding.state == state
    assert (
        f"{available}.0 GiB available of 16.0 GiB (the container's limit; the machine has 64.0"
        in finding.what
    )


def free(count):
    return lambda folder: SimpleNamespace(f_bavail=count // 4096, f_frsize=4096)


@pytest.mark.parametrize(("count", "state"), [(0, "failure"), (GIB, "warning"), (100 * GIB, "ok")])
def test_free_space_is_that_of_the_nearest_folder(tmp_path, count, state):
    finding = check_disk(tmp_path / "new" / "runs", statvfs=free(count))
    assert finding.state == state and f"free in {tmp_path}" in finding.what
    assert bool(finding.mend) == (state != "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_file(tmp_path, monkeypatch, number):
    def full(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(machine.os, "fsync", full)
    finding = check_disk(tmp_path, statvfs=free(100 * GIB))
    assert (
        finding.state == "failure" and os.strerror(number) in finding.what and "--output_path" in finding.mend
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "runs").touch()
    finding = check_disk(tmp_path / "runs" / "x")
    assert finding.state == "failure" and f"{tmp_path}/runs is no folder" in finding.what


def test_the_quickstart_fits_into_the_least_memory():
    record = json.loads((RECORDS / "quickstart.json").read_text())
    peak = record["peak_memory_mib"]["max"]
    assert f"the quickstart takes {peak * MIB / GIB:.1f} GiB" == machine.QUICKSTART
    assert peak * MIB <= machine.LEAST_MEMORY
