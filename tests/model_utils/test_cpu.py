"""oneDNN is told to use AVX2 before the first operator, unless the user has said otherwise."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.model_utils.cpu import use_fast_convolutions

ROOT = Path(__file__).parents[2]
VARIABLE = "ONEDNN_MAX_CPU_ISA"

CONVOLUTION = """
import mindspore as ms
import numpy as np
from src.layers.basic import conv2d
ms.set_device("CPU")
conv2d(in_channels=8, out_channels=8, kernel_size=3)(ms.Tensor(np.zeros((1, 8, 6, 6), np.float32))).asnumpy()
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
