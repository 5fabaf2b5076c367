# SPDX-License-Identifier: Apache-2.0
"""MindSpore is tried in a process of its own: what that answers, whatever becomes of it."""

import os
import sys

import pytest

from src.doctor import framework, probe
from src.doctor.framework import check_mindspore, try_mindspore


@pytest.fixture
def python(tmp_path, monkeypatch):
    """python(text): a shell script in place of Python, which the probe is started with."""
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(path))

    def put(text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return put


def test_the_probe_here(graph_mode):
    found = probe.convolve("CPU")
    assert found["target"] == "CPU" and found["gflops"] > 0 and found["start_s"] > 0
    assert check_mindspore(found | {"gflops": 50}, "CPU").state == "ok"


def test_what_it_is_asked_and_answers(python, monkeypatch):
    monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    python('echo noise; echo "{\\"words\\": \\"$*\\", \\"ranks\\": \\"$RANK_SIZE$MS_ROLE\\"}"; echo more')
    assert try_mindspore("GPU") == {"words": "-m src.doctor.probe GPU", "ranks": ""}
    assert os.environ["RANK_SIZE"] == "8"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo Traceback >&2; echo 'ImportError: numpy.core failed' >&2; exit 1",
            "ImportError: numpy.core failed",
        ),
        ("echo 'error: no Ascend backend; use CPU' >&2; exit 2", "no Ascend backend"),
        ("exit 3", "exit code 3"),
        ("echo bye", "it answered nothing"),
        ("kill -SEGV $$", "it was killed by SIGSEGV"),
    ],
)
def test_a_failure_is_one_line(python, script, error):
    python(script)
    assert try_mindspore("CPU") == {"error": error}
    finding = check_mindspore({"error": error}, "CPU")
    assert finding.state == "failure" and error in finding.what and "src.doctor.probe CPU" in finding.mend


def test_no_answer(python, monkeypatch):
    monkeypatch.setattr(framework, "TIMEOUT", 0.2)
    python("exec sleep 60")
    assert try_mindspore("CPU") == {"error": "no answer in 0.2 s"}


def test_slow_convolutions_are_a_warning():
    found = {"target": "CPU", "gflops": 0.8, "start_s": 3.0}
    assert check_mindspore(found, "auto").state == "warning"
    assert check_mindspore(found | {"target": "Ascend"}, "auto").state == "ok"
