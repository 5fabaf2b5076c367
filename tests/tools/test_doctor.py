# SPDX-License-Identifier: Apache-2.0
"""The doctor as it is called: with all packages, and by a Python that has none of them."""

import errno
import json
import os
import subprocess
import sys

import pytest

from src.doctor import examine as module
from src.doctor.examine import examine
from src.tools import doctor
from tests.helpers.doors import ROOT, call_main, error_of

WORKS = {"target": "CPU", "gflops": 50.0, "start_s": 1.0}
SILENT = ("RANK_TABLE_FILE", "NODE_NUM", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "ONEDNN_MAX_CPU_ISA")


@pytest.fixture(autouse=True)
def small_and_quiet(monkeypatch):
    """MindSpore is not tried, there are no cards, and no variable says anything."""
    monkeypatch.setattr(module, "try_mindspore", lambda target: WORKS)
    monkeypatch.setattr(module.checks, "visible_cards", lambda target: [])
    for name in SILENT:
        monkeypatch.delenv(name, raising=False)


def without_packages(*words, site=None):
    """The doctor by this Python without its site-packages, as one that nothing was installed for."""
    environment = {name: value for name, value in os.environ.items() if name not in (*SILENT, "PYTHONPATH")}
    if site:
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-S", "-m", "src.tools.doctor", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_machine_that_works(tmp_path, data_path):
    ended = call_main(doctor.main, "--data_path", data_path, "--output_path", tmp_path / "runs", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    *lines, last = ended.stdout.splitlines()
    found = json.loads(last)
    assert found["works"] is True
    names = [finding["name"] for finding in found["findings"]]
    assert names == [
        "Python", "MindSpore", "numpy", "packages", "operators", "Ascend", "GPU", "processor", "oneDNN",
        "memory", "disk", "data",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == names
    assert list(tmp_path.iterdir()) == []


def test_failures_are_named_and_the_exit_code_is_2(tmp_path):
    ended = call_main(doctor.main, "--data_path", tmp_path / "none", "--output_path", "/dev/null/runs")
    assert error_of(ended) == "error: this will not work yet: disk, data; the mend stands below each failure"
    assert ended.stdout.count("\n         ") >= 2 and "mend: give the data set's folder" in ended.stdout


def test_folders_that_this_user_may_not_look_into(tmp_path, monkeypatch):
    """As another user's: what is in them can't even be asked for."""
    real = os.stat

    def stat(path, *arguments, **how):
        if not isinstance(path, int) and os.fspath(path).startswith(f"{tmp_path}/closed/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **how)

    monkeypatch.setattr(os, "stat", stat)
    closed = tmp_path / "closed"
    found = {f.name: f for f in examine(output_path=closed / "runs", data_path=closed / "data")}
    assert found["data"].what == f"{closed}/data cannot be read (Permission denied)"
    assert f"free in {tmp_path}" in found["disk"].what
    monkeypatch.setenv("ASCEND_HOME_PATH", f"{closed}/cann")
    found = {f.name: f for f in examine(device_target="Ascend")}
    assert found["CANN"].what.endswith("which is not there") and found["CANN"].mend


def test_several_processes_are_looked_at_where_they_are_asked_for(monkeypatch):
    found = {f.name: f for f in examine(device_target="CPU", cards=2)}
    assert "2 processes on CPU" in found["launcher"].what
    monkeypatch.setattr(module, "try_mindspore", lambda target: {"error": "no such device"})
    found = {f.name: f for f in examine(device_target="Ascend", cards=8)}
    assert [found[name].state for name in ("operators", "Ascend", "CANN", "launcher")] == ["failure"] * 4
    found = {f.name: f for f in examine(device_target="CPU", cards=2)}
    assert not {"Ascend", "CANN", "GPU"} & {*found}, "no card is asked for"


@pytest.mark.parametrize(("target", "state"), [("auto", "warning"), ("GPU", "failure"), ("CPU", None)])
def test_a_gpu_without_use(monkeypatch, target, state):
    monkeypatch.setattr(module.checks, "visible_cards", lambda of: ["0"] if of == "GPU" else [])
    answer = {"error": "not available"} if target == "GPU" else WORKS
    monkeypatch.setattr(module, "try_mindspore", lambda target: answer)
    found = [f.state for f in examine(device_target=target) if "does not run on a GPU" in f.what]
    assert found == ([state] if state else [])


def test_servers_of_one_card_each_are_looked_at(monkeypatch):
    monkeypatch.setenv("NODE_NUM", "two")
    found = {f.name: f for f in examine(device_target="CPU")}
    assert (found["servers"].state, found["servers"].what) == ("failure", "NODE_NUM is 'two'")


def test_it_starts_without_any_package(tmp_path):
    ended = without_packages("--json", "--data_path", tmp_path / "none")
    assert ended.returncode == 2 and ended.stderr.startswith(
        "error: this will not work yet: MindSpore, numpy"
    )
    assert ended.stderr.count("\n") == 1
    found = {row["name"]: row for row in json.loads(ended.stdout.splitlines()[-1])["findings"]}
    assert [found[name]["what"] for name in ("MindSpore", "numpy")] == ["not installed"] * 2
    assert "psutil" in found["packages"]["what"] and "is no folder" in found["data"]["what"]
    assert found["disk"]["state"] in ("ok", "warning"), "GOOD_DISK need not be free here"


def test_numpy_2_beside_mindspore_is_named(tmp_path):
    for name, version in (("numpy", "2.4.1"), ("mindspore", "2.10.0")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} was built for another')")
    ended = without_packages(site=tmp_path)
    assert ended.returncode == 2 and "Traceback" not in ended.stdout + ended.stderr
    assert 'mend: pip install "numpy==1.26.4"' in ended.stdout
    assert "a convolution fails: ImportError: mindspore was built for another" in ended.stdout


def test_a_wrong_call_is_one_line():
    for words, said in (
        (["--cards", "-1"], "cards: -1 given, allowed: a whole number >= 0"),
        (["--device_target", "TPU"], "argument --device_target: invalid choice: 'TPU'"),
        (["--datapath", "x"], "unrecognized arguments: --datapath x (--datapath given, --data_path is the"),
    ):
        ended = call_main(doctor.main, *words)
        assert error_of(ended).startswith(f"error: {said}") and ended.stdout == ""
