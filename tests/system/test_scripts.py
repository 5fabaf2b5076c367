"""Every script that starts a door: its usage, what it refuses, and its work on a CPU."""

import json
import os
import re
import signal

import pytest

from tests.helpers.scripts import CONFIG, TINY, call, started

CPU = {"DEVICE_TARGET": "CPU"}
# Script, the words it needs, and where it runs by default.
SCRIPTS = [
    ("run_standalone_train.sh", 2, "Ascend"),
    ("run_standalone_train_gpu.sh", 2, "GPU"),
    ("run_distribute_train.sh", 2, "Ascend"),
    ("run_distribute_train_gpu.sh", 2, "GPU"),
    ("run_eval.sh", 2, "Ascend"),
    ("run_eval_gpu.sh", 2, "GPU"),
    ("run_distribute_eval.sh", 2, "Ascend"),
    ("run_export.sh", 1, "Ascend"),
]
EACH = pytest.mark.parametrize(("script", "needed", "target"), SCRIPTS, ids=[row[0] for row in SCRIPTS])


def refused(folder, said, script, *words, **environment):
    """The script ends with code 2 and one line, and nothing has been made."""
    before = sorted(folder.rglob("*"))
    code, output, errors = call(folder, script, *words, **environment)
    assert (code, output) == (2, "")
    assert re.fullmatch(rf"error: .*{said}.*\n", errors), errors
    assert sorted(folder.rglob("*")) == before


@EACH
def test_usage_and_wrong_arguments(tmp_path, script, needed, target):
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
    wrong = "PTH" if "export" in script else "x"
    refused(tmp_path, f"{wrong}.*; {usage}", script, *["here"] * needed, wrong)
    refused(tmp_path, f"DEVICE_TARGET is TPU; .*{usage}", script, *["here"] * needed, DEVICE_TARGET="TPU")


@EACH
def test_without_cards_the_way_to_a_cpu_is_shown(tmp_path, script, needed, target):
    (tmp_path / "here").touch()
    words = ["here"] * needed
    refused(tmp_path, f"no {target} card on this server .*; DEVICE_TARGET=CPU", script, *words)


@pytest.fixture(scope="module")
def trained(data_path, tmp_path_factory):
    """The folder where one training on a CPU was started, and what it printed."""
    folder = tmp_path_factory.mktemp("standalone")
    words = [os.path.relpath(CONFIG, folder), os.path.relpath(data_path, folder), 0, *TINY, "--epochs", 2]
    code, output, errors = call(folder, "run_standalone_train.sh", *words, **CPU)
    assert code == 0, errors
    return folder, output


def test_train_on_one_device(trained):
    folder, output = trained
    run = re.search(r"\nrun: (.*)\n\Z", output)[1]
    assert re.fullmatch(rf"{folder}/runs/quickstart-\d{{8}}-\d{{6}}", run)
    (logs,) = (folder / "logs").iterdir()
    assert logs.name.startswith("train-")
    assert (logs / "worker_0.log").read_text() in output
    assert "epoch 2.00  top-1" in output


@pytest.mark.distributed
def test_evaluate_on_one_device_and_on_two(trained, data_path):
    folder, _ = trained
    (checkpoint,) = (folder / "runs").glob("*/checkpoints/best.ckpt")
    found = []
    for script, count in (("run_eval.sh", 0), ("run_distribute_eval.sh", 2)):
        code, output, errors = call(
            folder,
            script,
            checkpoint,
            data_path,
            count,
            "--flip_tta",
            "true",
            LOG_DIR=f"logs_of_{script}",
            **CPU,
        )
        assert code == 0, errors
        found.append(json.loads(output.splitlines()[-1]))
    assert found[0]["flip_tta"] and found[0]["count"] == 70
    for name in ("count", "top1", "loss"):
        assert found[0][name] == found[1][name]
    assert (folder / "logs_of_run_distribute_eval.sh" / "worker_1.log").is_file()


def test_export(trained):
    folder, _ = trained
    (checkpoint,) = (folder / "runs").glob("*/checkpoints/best.ckpt")
    code, output, errors = call(folder, "run_export.sh", checkpoint, "MINDIR", "out/model", **CPU)
    assert code == 0, errors
    assert json.loads(output.splitlines()[-1])
    assert (folder / "out" / "model.mindir").is_file()


def test_a_mistake_in_a_key_ends_with_code_2_and_its_line(tmp_path, data_path):
    code, _, errors = call(
        tmp_path, "run_standalone_train_gpu.sh", CONFIG, data_path, "--learning_rte", 1, LOG_DIR="logs", **CPU
    )
    assert code == 2
    assert re.search(r"\nerror: rank 0 \(pid \d+\): learning_rte: 1 given, but there is no such key", errors)


def test_a_signal_to_the_script_reaches_the_door(tmp_path, data_path):
    (tmp_path / "model.ckpt").touch()
    words = [tmp_path / "model.ckpt", data_path]
    with started(tmp_path, "run_eval_gpu.sh", *words, LOG_DIR="logs", **CPU) as process:
        for line in process.stderr:
            if line.startswith("logs:"):
                process.send_signal(signal.SIGTERM)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "stopped\n"
