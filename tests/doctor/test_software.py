# SPDX-License-Identifier: Apache-2.0
"""Python and the packages: what is compared with requirements.txt."""

import sys

import pytest

from src.doctor import software
from src.doctor.software import check_packages, check_python, installed, pinned

WANTED = {"mindspore": "2.10.0", "numpy": "1.26.4", "tqdm": "4.70.1", "pyyaml": "6.0.3"}


def states(wanted, found):
    return {
        finding.name: (finding.state, finding.what, finding.mend) for finding in check_packages(wanted, found)
    }


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        ((3, 10, 2), "failure", "3.11 is needed"),
        ((3, 11, 0), "ok", "3.11.0"),
        ((3, 12, 1), "warning", "only 3.11 is tested"),
        ((3, 13, 0), "failure", "MindSpore has no package for it"),
    ],
)
def test_the_version_of_python(tmp_path, version, state, said):
    (finding,) = check_python(version, root=tmp_path)
    assert (finding.name, finding.state) == ("Python", state)
    assert said in finding.what and sys.executable in finding.what
    assert bool(finding.mend) == (state != "ok")


def test_another_environment_than_the_scripts_take_is_said(tmp_path):
    (tmp_path / "real" / "bin").mkdir(parents=True)
    (tmp_path / "real" / "bin" / "python").touch()
    (tmp_path / ".venv").symlink_to(tmp_path / "real")
    assert [f.name for f in check_python((3, 11, 0), str(tmp_path / "real"), tmp_path)] == ["Python"]
    _, other = check_python((3, 11, 0), str(tmp_path / "other"), tmp_path)
    assert other.state == "warning" and f"{tmp_path}/.venv/bin/python -m src.tools.doctor" in other.mend


def test_the_pins_are_those_of_the_file(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "numpy==1.26.4   # why\n# x==1\nPyYAML == 6.0.3\n-r other.txt\n"
    )
    assert pinned(tmp_path) == {"numpy": "1.26.4", "pyyaml": "6.0.3"}
    wanted = pinned()
    assert {"mindspore", "numpy", "psutil"} <= wanted.keys()
    assert installed(wanted) == wanted, "this environment is not the one of requirements.txt"


def test_without_the_file_they_are_those_of_the_installed_package(tmp_path, monkeypatch):
    requires = ["numpy==1.26.4", 'tqdm==4.70.1; python_version > "3"']
    monkeypatch.setattr(software.importlib.metadata, "requires", lambda name: requires)
    assert pinned(tmp_path) == {"numpy": "1.26.4", "tqdm": "4.70.1"}


def test_all_as_in_the_file_is_ok():
    assert {state for state, *_ in states(WANTED, WANTED).values()} == {"ok"}


@pytest.mark.parametrize("version", ["2.0.0", "2.4.1", "10.0"])
def test_numpy_2_is_a_failure_and_its_mend_the_pin(version):
    state, what, mend = states(WANTED, WANTED | {"numpy": version})["numpy"]
    assert state == "failure" and version in what and "fail with numpy 2" in what
    assert mend == 'pip install "numpy==1.26.4"'


def test_another_version_is_a_warning():
    found = states(WANTED, WANTED | {"numpy": "1.25.0", "mindspore": "2.9.0", "tqdm": "4.60.0"})
    assert found["numpy"][:2] == ("warning", "1.25.0: 1.26.4 is tested")
    assert found["MindSpore"][:2] == ("warning", "2.9.0: 2.10.0 is tested")
    assert found["packages"][0] == "warning" and "tqdm 4.60.0 (4.70.1)" in found["packages"][1]


def test_a_missing_package_is_a_failure():
    found = states(WANTED, dict.fromkeys(WANTED))
    assert {state for state, *_ in found.values()} == {"failure"}
    assert found["packages"][1] == "not installed: tqdm, pyyaml"
    assert {mend for *_, mend in found.values()} == {"pip install -r requirements.txt"}


def test_an_installed_package_has_no_file_of_requirements(tmp_path, monkeypatch):
    assert software.install_command() == software.INSTALL == "pip install -r requirements.txt"
    monkeypatch.setattr(software.importlib.metadata, "requires", lambda name: ["numpy==1.26.4", "tqdm==4.1"])
    assert software.install_command(tmp_path) == "pip install numpy==1.26.4 tqdm==4.1"
