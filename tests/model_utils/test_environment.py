# SPDX-License-Identifier: Apache-2.0
"""What is recorded of the machine."""

import json
import os
import platform
import re
import sys

import numpy as np

from src.model_utils import environment as module
from src.model_utils.environment import environment, peak_memory_mib


def test_environment_is_complete_and_json(tmp_path):
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", found["mindspore"])
    assert 1 <= found["cpu_count"] <= os.cpu_count()
    assert found["memory_gib"] > 0.1
    assert found["cpu"]
    assert found["os"].startswith(platform.system())


def test_cpu_name(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Fast: 3000 @ 2 GHz\nmodel name\t: other\n"
    )
    assert module.cpu_name(cpuinfo) == "Fast: 3000 @ 2 GHz"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 200.00\nCPU implementer\t: 0x48\n")
    assert module.cpu_name(cpuinfo) == "aarch64"
    assert module.cpu_name(tmp_path / "missing") == "aarch64"


def test_a_package_that_is_not_installed_has_noversion_of():
    assert module.version_of("a-package-that-nobody-wrote") is None


def test_peak_memory_covers_what_was_held():
    held = np.ones(2**23)  # 64 MiB
    found = peak_memory_mib()
    assert held.nbytes / 2**20 < found < 2**20
