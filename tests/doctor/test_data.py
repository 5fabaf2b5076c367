# SPDX-License-Identifier: Apache-2.0
"""The data path is opened as a training opens it."""

import sys

from src.doctor import data
from src.doctor.data import check_data
from src.doctor.finding import Finding, failure, in_words, ok, warning
from tests.helpers.folders import save


def test_binary_files(data_path):
    assert check_data(data_path) == ok("data", f"{data_path}: 200 training and 70 test images, 4 classes")


def test_class_folders(tmp_path):
    for name in ("train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "val/cat/3.jpg", "val/dog/2.jpg"):
        save(tmp_path / name)
    assert check_data(tmp_path).what == f"{tmp_path}: 3 training and 2 test images, 2 classes"


def test_a_missing_path_needs_no_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "src.data.sources", None)
    finding = check_data(tmp_path / "nowhere")
    assert finding.state == "failure" and "is no folder" in finding.what and "--data_path" in finding.mend
    monkeypatch.chdir(tmp_path)
    assert f"(relative to {tmp_path})" in check_data(data.Path("nowhere")).what


def test_a_folder_without_a_data_set_and_a_damaged_one(tmp_path, data_path):
    finding = check_data(tmp_path)
    assert finding.state == "failure" and "holds no data set" in finding.what and "data_path" in finding.mend
    for path in data_path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100_000])
    finding = check_data(tmp_path)
    assert finding.state == "failure" and "data_batch_1.bin is too short" in finding.what and finding.mend


def test_without_the_packages_it_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "src.data.sources", None)
    finding = check_data(tmp_path)
    assert finding.state == "failure" and "cannot be looked at: a package is missing" in finding.what
    assert finding.mend == "pip install -r requirements.txt"


def test_the_lines_of_a_report():
    findings = [ok("a", "fine"), warning("longer", "slow", "unset X"), failure("b", "none", "install it")]
    assert in_words(findings).splitlines() == [
        "ok       a       fine",
        "warning  longer  slow",
        "                 mend: unset X",
        "failure  b       none",
        "                 mend: install it",
    ]
    assert in_words([Finding("n", "ok", "\udcff")]) == "ok       n  ?"
