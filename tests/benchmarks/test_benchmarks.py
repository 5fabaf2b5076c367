# SPDX-License-Identifier: Apache-2.0
"""Each benchmark can be imported and asked for help, and every record names the script that made it."""

import importlib
import json
import re
import sys

import pytest

from benchmarks.record import RECORDS, ROOT, end_with, spread, version_of, write_record
from src.common.errors import UserError

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_each_script_is_imported_and_helps(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "main"):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            module.main()
        assert end.value.code == 0 and module.__doc__.splitlines()[0] in capsys.readouterr().out


def test_an_error_of_use_is_one_line(capsys):
    def main():
        raise UserError("data: nothing there")

    with pytest.raises(SystemExit) as end:
        end_with(main)
    assert (end.value.code, capsys.readouterr().err) == (2, "error: data: nothing there\n")
    with pytest.raises(SystemExit) as end:
        end_with(lambda: 1)
    assert end.value.code == 1


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_each_record_names_its_script(path):
    record = json.loads(path.read_text())
    assert re.match(r"python -m benchmarks\.(\w+)", record["command"])[1] in NAMES
    assert record["question"] and record["date"] and record["environment"]["cpu"]


def test_what_a_record_says(tmp_path):
    path = tmp_path / "a.json"
    written = write_record(path, question="how?", command="so", versions={"torch": "1"}, bar=2)
    assert json.loads(path.read_text()) == written
    assert (written["question"], written["command"], written["bar"]) == ("how?", "so", 2)
    assert written["environment"]["torch"] == "1" and written["environment"]["mindspore"]
    assert written["load_average_before"] >= 0


def test_figures_of_several_measurements():
    assert spread([4, 1, 1, 3.125], 1) == {"n": 4, "mean": 2.3, "median": 2.1, "min": 1, "max": 4}


def test_a_version_is_read_in_the_other_environment():
    assert version_of("pytest", python=sys.executable) == pytest.__version__
