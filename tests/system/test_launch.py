# SPDX-License-Identifier: Apache-2.0
"""Real trainings by the scripts: on two servers, and with a killed worker.

A stopped worker is in tests/parallel/launch: once it is found, its restart is that of a killed one.
"""

import contextlib
import os
import signal

import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.common import heartbeat
from tests.helpers import namespaces
from tests.helpers.scripts import BOUND, CONFIG, TINY, call, left, pid_of, started, wait_for

pytestmark = pytest.mark.distributed

STEPS = 20
KEYS = [*TINY, "--train_steps", STEPS, "--save_every", 1, "--eval_every", STEPS, "--log_every", 1]


def last(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def assert_same(run, undisturbed):
    trained = last(run)
    assert trained.meta["step"] == STEPS
    assert trained.arrays.keys() == undisturbed.arrays.keys()
    different = [n for n in trained.arrays if not np.array_equal(trained.arrays[n], undisturbed.arrays[n])]
    assert not different


@pytest.fixture(scope="module")
def undisturbed(data_path, tmp_path_factory):
    """The checkpoint of a training of two workers to which nothing happened."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output, errors = call(
        folder, "run_distribute_train_gpu.sh", CONFIG, data_path, 2, *KEYS, "--run_name", "run",
        DEVICE_TARGET="CPU",
    )  # fmt: skip
    assert code == 0, errors
    assert output.splitlines()[-1] == f"run: {folder}/runs/run"
    return last(folder / "runs" / "run")


def training(data_path, folder, count=2, *, name=("--run_name", "run"), **how):
    words = [CONFIG, data_path, count, *KEYS, *name]
    return started(
        folder, "run_distribute_train.sh", *words, **{"DEVICE_TARGET": "CPU", "LOG_DIR": "logs"} | how
    )


def test_a_killed_worker_is_named_and_changes_nothing(data_path, tmp_path, undisturbed):
    logs = tmp_path / "logs"
    with training(data_path, tmp_path, MAX_RESTARTS="1") as process:
        wait_for(logs / "worker_0.log", "batch 7/")
        pid = pid_of(logs, 1)
        os.kill(pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=BOUND)
    assert process.returncode == 0, errors
    lines = errors.splitlines()
    assert f"error: rank 1 (pid {pid}) was killed by SIGKILL; log: {logs}/worker_1.log" in lines
    assert f"restart 1 of 1, from runs/run; logs: {logs}/restart_1" in lines
    assert output.splitlines()[-1] == f"run: {tmp_path}/runs/run"
    assert_same(tmp_path / "runs" / "run", undisturbed)
    assert left(str(tmp_path)) == []


@pytest.mark.slow
def test_a_polite_signal_saves_on_all_ranks(data_path, tmp_path):
    with training(data_path, tmp_path, MAX_RESTARTS="1") as process:
        wait_for(tmp_path / "logs" / "worker_0.log", "batch 7/")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=BOUND)
    assert process.returncode == 143, errors
    assert "continue with: python train.py --resume runs/run" in output
    assert errors.splitlines()[-1] == "stopped"
    assert 7 <= last(tmp_path / "runs" / "run").meta["step"] < STEPS


def test_a_restart_of_a_continued_run_has_the_same_keys(tmp_path, monkeypatch):
    import train
    from src.training import session

    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.yaml").write_text("model: resnet9\n")
    monkeypatch.setattr(session, "resume", lambda *_, **how: None)
    monkeypatch.setenv("QUARTET_HEARTBEAT", str(tmp_path))
    monkeypatch.setenv("RANK_ID", "0")
    words = ["--resume", str(tmp_path / "r"), "--batch_size", "8"]
    assert train.main(words) == 0
    assert heartbeat.announced(tmp_path, 0) == heartbeat.Run(tmp_path / "r", words)


@contextlib.contextmanager
def two_servers_training(data_path, folder, **how):
    """Two scripts, each with the cores that a worker of one server has: the order of its sums depends on
    their number."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(namespaces.two_servers())
        processes = []
        for rank, server in enumerate(servers):
            own = ",".join(map(str, cores[rank * half : (rank + 1) * half] or cores))
            place = {"NODE_NUM": "2", "NODE_RANK": str(rank), "MASTER_ADDR": namespaces.ADDRESSES[0]}
            process = training(
                data_path,
                folder,
                1,
                before=[*server, "taskset", "-c", own],
                LOG_DIR=f"logs_{rank}",
                **place,
                **how,
            )
            processes.append(stack.enter_context(process))
        yield processes


NAMESPACES = pytest.mark.skipif(bool(namespaces.why_not()), reason=namespaces.why_not() or "possible")


@NAMESPACES
def test_two_servers_train_like_one(data_path, tmp_path, undisturbed):
    with two_servers_training(data_path, tmp_path) as processes:
        for process in processes:
            _, errors = process.communicate(timeout=BOUND)
            assert process.returncode == 0, errors
    assert (tmp_path / "logs_0" / "worker_0.log").is_file()
    assert (tmp_path / "logs_1" / "worker_1.log").is_file()
    assert_same(tmp_path / "runs" / "run", undisturbed)


@pytest.mark.slow
@NAMESPACES
def test_two_servers_restart_the_run_that_rank_0_named(data_path, tmp_path, undisturbed):
    with two_servers_training(data_path, tmp_path, name=(), MAX_RESTARTS="1") as processes:
        wait_for(tmp_path / "logs_0" / "worker_0.log", "batch 7/")
        os.kill(pid_of(tmp_path / "logs_1", 1), signal.SIGKILL)
        for process in processes:
            _, errors = process.communicate(timeout=BOUND)
            assert process.returncode == 0, errors
            assert "restart 1 of 1, from runs/quickstart-" in errors
    (run,) = (tmp_path / "runs").iterdir()
    assert_same(run, undisturbed)
