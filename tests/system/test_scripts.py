# SPDX-License-Identifier: Apache-2.0
"""Every script that starts a door: its usage, what it refuses, and its work on a CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.common.files import MARKER, new_folder
from tests.helpers.scripts import CONFIG, ROOT, TINY, call, started

CPU = {"DEVICE_TARGET": "CPU"}
# Script, its door, the words it needs, and where it runs by default.
SCRIPTS = [
    ("run_standalone_train.sh", "train.py", 2, "Ascend"),
    ("run_standalone_train_gpu.sh", "train.py", 2, "GPU"),
    ("run_distribute_train.sh", "train.py", 2, "Ascend"),
    ("run_distribute_train_gpu.sh", "train.py", 2, "GPU"),
    ("run_eval.sh", "eval.py", 2, "Ascend"),
    ("run_eval_gpu.sh", "eval.py", 2, "GPU"),
    ("run_distribute_eval.sh", "eval.py", 2, "Ascend"),
    ("run_export.sh", "export.py", 1, "Ascend"),
]
EACH = pytest.mark.parametrize(
    ("script", "door", "needed", "target"), SCRIPTS, ids=[row[0] for row in SCRIPTS]
)
STARTED = sorted(path.name for path in (ROOT / "scripts").glob("*.sh") if path.read_text().startswith("#!"))


def refused(folder, said, script, *words, **environment):
    """The script ends with code 2 and one line, and nothing has been made."""
    before = sorted(folder.rglob("*"))
    code, output, errors = call(folder, script, *words, **environment)
    assert (code, output) == (2, "")
    assert re.fullmatch(rf"error: .*{said}.*\n", errors), errors
    assert sorted(folder.rglob("*")) == before


@EACH
def test_usage_and_wrong_arguments(tmp_path, script, door, needed, target):
    (tmp_path / "here").touch()
    usage = rf"usage: bash scripts/{script} "
    code, output, errors = call(tmp_path, script, "--help")
    assert (code, errors) == (0, "")
    assert re.match(usage, output)
    for name in (
        "DEVICE_TARGET",
        "LOG_DIR",
        "MAX_RESTARTS",
        "HANG_TIMEOUT",
        "RANK_TABLE_FILE",
        "MASTER_PORT",
    ):
        assert f"\n  {name} " in output
    refused(tmp_path, f"{needed - 1} arguments given; {usage}", script, *["here"] * (needed - 1), "--lr", 1)
    refused(tmp_path, f"4 arguments given; {usage}", script, *["here"] * 4)
    refused(
        tmp_path, f"nowhere: no such file or folder; {usage}", script, *["here"] * (needed - 1), "nowhere"
    )
    if "export" not in script:  # whose next word is a format, which the door knows
        refused(tmp_path, f"x; a whole number .*; {usage}", script, *["here"] * needed, "x")
    refused(tmp_path, f"DEVICE_TARGET is TPU; .*{usage}", script, *["here"] * needed, DEVICE_TARGET="TPU")


@pytest.fixture
def stub(tmp_path):
    """A Python that prints its process and its words, which the scripts start in place of the launcher."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\n[ "$1" = -c ] && { echo 3.11; exit; }\nprintf "%s\\n" $$ "$@"\n')
    path.chmod(0o755)
    return {"PYTHON": str(path)}


@EACH
def test_the_launcher_takes_the_scripts_place_and_gets_the_words_unchanged(
    tmp_path, script, door, needed, target, stub
):
    """So its exit status is the script's, and signals reach it."""
    (tmp_path / "set #2").mkdir()
    words = ["--run_name", "001", "--note", "a  b", "--empty", "", "--star", "*"]
    with started(tmp_path, script, *["set #2"] * needed, *words, **stub) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    pid, *said = output.split("\n")[:-1]
    assert int(pid) == process.pid
    here = str(tmp_path / "set #2")
    several = ["--workers", "8"] if "distribute" in script else ["--standalone", "0"]
    assert said[:8] == ["-m", "src.tools.launch", *several, "--device_target", target, "--", str(ROOT / door)]
    file = "--config_path" if door == "train.py" else "--checkpoint_path"
    more = ["--file_format", "MINDIR"] if door == "export.py" else ["--data_path", here]
    assert said[8:] == [file, here, *more, "--device_target", target, *words]


@pytest.mark.parametrize("script", STARTED)
def test_help_needs_no_python(tmp_path, script):
    """And changes nothing; below the usage stands what can be set."""
    for word in ("--help", "-h"):
        code, output, errors = call(tmp_path, script, word, PYTHON="/nowhere/python")
        assert (code, errors) == (0, "") and os.listdir(tmp_path) == []
        assert output.startswith(f"usage: bash scripts/{script} ") and output.count("\n") > 3
    if script == "run_infer_310.sh":
        for name in ("DEVICE_TARGET", "DEVICE_ID", "LABELS", "BATCH_SIZE", "ANSWERS", "PYTHON"):
            assert f"\n  {name} " in output


@pytest.mark.parametrize("script", STARTED)
def test_another_shell_or_python_is_one_line(tmp_path, script, stub):
    if shutil.which("dash"):
        words = ["dash", ROOT / "scripts" / script]
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"error: start it with bash: bash {ROOT}/scripts/{script}\n"
    if script.startswith("run_"):
        doctor = "python3 -m src.tools.doctor says what this machine has"
        wrong = f"PYTHON is /nowhere/python, which does not run; .*; {doctor}"
        refused(tmp_path, wrong, script, PYTHON="/nowhere/python")
        old = Path(stub["PYTHON"])
        old.write_text(old.read_text().replace("3.11", "3.8"))
        refused(tmp_path, f"{old} is Python 3.8, and 3.11 is needed", script, **stub)


def test_a_clone_without_venv_says_which_python_is_started(tmp_path, stub):
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    (tmp_path / "bin").mkdir()
    Path(stub["PYTHON"]).rename(tmp_path / "bin" / "python3")
    (tmp_path / "data").touch()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    environment["PATH"] = f"{tmp_path}/bin:{environment['PATH']}"
    words = ["bash", str(clone / "scripts" / "run_eval.sh"), "data", "data"]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and "src.tools.launch" in ended.stdout
    assert ended.stderr == f"no .venv in {clone}: starting with {tmp_path}/bin/python3, Python 3.11\n"


def test_a_venv_whose_making_was_interrupted_gets_its_pip(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    (clone / "requirements.txt").write_text("# none\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    words = ["bash", "-c", "source scripts/environment.sh requirements.txt && $PYTHON -m pip --version"]
    ended = subprocess.run(words, cwd=clone, capture_output=True, text=True)
    assert ended.returncode == 0 and f"{clone}/.venv" in ended.stdout, ended.stderr


def test_the_quickstart_says_where_its_run_is_whatever_the_defaults_say(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("requirements.txt", ".venv/.installed-requirements.txt"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    python.chmod(0o755)
    words = ["bash", "scripts/quickstart.sh", "--data_path", "."]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 3 and ended.stdout.startswith("train.py "), ended.stderr
    assert " --output_path runs --run_name quickstart-" in ended.stdout


def test_files_keep_their_line_ends_in_every_clone():
    names = ["scripts/run_eval.sh", "configs/resnet9/cifar10.yaml", "train.py"]
    found = subprocess.run(
        ["git", "check-attr", "eol", "--", *names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "".join(f"{name}: eol: lf\n" for name in names)


@pytest.mark.distributed
def test_train_on_one_device_evaluate_on_two_and_export(data_path, tmp_path):
    """The paths are relative to where the script is called."""
    words = [os.path.relpath(CONFIG, tmp_path), os.path.relpath(data_path, tmp_path), 0, *TINY, "--epochs", 2]
    code, output, errors = call(tmp_path, "run_standalone_train.sh", *words, **CPU)
    assert code == 0, errors
    run = Path(re.search(r"\nrun: (.*)\n\Z", output)[1])
    assert re.fullmatch(rf"{tmp_path}/runs/quickstart-\d{{8}}-\d{{6}}", str(run))
    (logs,) = (tmp_path / "logs").iterdir()
    assert logs.name.startswith("train-")
    assert (logs / "worker_0.log").read_text() in output
    assert "epoch 2.00  top-1" in output
    best = json.loads((run / "summary.json").read_text())["best"]

    checkpoint = run / "checkpoints" / "best.ckpt"
    code, output, errors = call(
        tmp_path, "run_distribute_eval.sh", checkpoint, data_path, 2, LOG_DIR="logs_of_two", **CPU
    )
    assert code == 0, errors
    found = json.loads(output.splitlines()[-1])
    assert found["count"] == 70 and found["top1"] == best["top1"]
    assert (tmp_path / "logs_of_two" / "worker_1.log").is_file()

    folder = tmp_path / "out" / "model"
    with new_folder(folder, replace=True) as older:  # an export for two batch sizes
        for name in ("card.json", "parity.json", "model_b1.mindir", "model_b8.mindir"):
            (older / name).write_text("older")
    code, output, errors = call(tmp_path, "run_export.sh", checkpoint, "MINDIR", "out/model", **CPU)
    assert code == 0, errors
    assert json.loads(output.splitlines()[-1])["passed"]
    assert sorted(os.listdir(folder)) == [MARKER, "card.json", "model.mindir", "parity.json"]
    assert "older" not in (folder / "card.json").read_text()
