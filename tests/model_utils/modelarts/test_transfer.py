"""Several processes, and transfers that are slow, fail, hang or are killed: the data is whole or absent."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from src.common.errors import UserError
from src.model_utils.modelarts.transfer import Bucket, Place
from tests.model_utils.modelarts.cloud import DATA, tree, wait_until

KEYS = {"data_url": "obs://bucket/data"}


def leftovers(cloud):
    return [path.name for path in cloud.server.glob(".data.part-*")]


def test_of_four_processes_one_fetches_and_one_uploads(cloud):
    cloud.steer("pause")
    ranks = [
        cloud.begin(**KEYS, train_url="obs://bucket/out", environment={"RANK_ID": str(rank)})
        for rank in range(4)
    ]
    members = cloud.server / "tmp" / f"quartet-{os.getuid()}" / "local" / "members"
    wait_until(lambda: (cloud.obs / "paused").exists() and len(list(members.iterdir())) == 4)
    (cloud.obs / "pause").unlink()
    ends = [cloud.end(process) for process in ranks]
    assert [code for code, *_ in ends] == [0] * 4
    assert all(facts["seen"] == DATA for _, facts, _ in ends)
    assert sum(call.startswith("obs://bucket/data ->") for call in cloud.calls()) == 1
    logs = [f"cloud_worker-rank{rank}.log" for rank in range(4)]
    assert tree(cloud.bucket / "out" / "logs") == logs
    # Nobody uploads while another is at work, unless all of them end at the same time.
    assert 1 <= sum("-> obs://bucket/out" in call for call in cloud.calls()) <= 4


def test_when_the_fetching_process_is_killed_the_waiting_one_takes_over(cloud):
    cloud.steer("pause")
    first = cloud.begin(**KEYS)
    cloud.wait_for("paused")
    second = cloud.begin(**KEYS)
    line = second.stderr.readline()
    assert line == f"modelarts: data: waiting for process {first.pid}\n"
    assert leftovers(cloud) and not cloud.data.exists()
    first.kill()
    assert cloud.end(first)[0] == -signal.SIGKILL
    (cloud.obs / "pause").unlink()
    code, facts, error = cloud.end(second)
    assert code == 0, error
    assert f"data: process {first.pid} died in the middle; this one takes over" in error
    assert facts["seen"] == DATA and leftovers(cloud) == []


@pytest.mark.parametrize("job", [{}, {"JOB_ID": "job-1"}], ids=["local", "job"])
def test_after_a_kill_the_next_run_fetches_the_whole(cloud, job):
    cloud.steer("pause")
    first = cloud.begin(**KEYS, environment=job)
    cloud.wait_for("paused")
    first.kill()
    cloud.end(first)
    (cloud.obs / "pause").unlink()
    code, facts, error = cloud.run(**KEYS, environment=job)
    assert code == 0, error
    assert facts["seen"] == DATA and leftovers(cloud) == []


def test_a_lock_of_the_dead_stops_nobody(cloud):
    job = cloud.server / "tmp" / f"quartet-{os.getuid()}" / "job-1"
    (job / "members").mkdir(parents=True)
    # A number that is taken again by a living process, which began at another time.
    (job / "members" / f"{os.getpid()}-1").touch()
    (job / "data.lock").write_text(json.dumps({"pid": os.getpid(), "started": "1"}))
    (job / "data.failed").write_text(json.dumps({"id": "x", "pid": 1, "reason": "long ago"}))
    code, facts, error = cloud.run(
        **KEYS, train_url="obs://bucket/out", environment={"JOB_ID": "job-1"}, transfer_timeout=60
    )
    assert code == 0, error
    assert facts["seen"] == DATA and "takes over" in error
    assert tree(job / "members") == [] and (cloud.bucket / "out" / "run").is_dir()


def test_an_attempt_that_fails_is_followed_by_another(cloud):
    cloud.steer("fail", 1)
    code, facts, error = cloud.run(**KEYS, transfer_attempts=2)
    assert code == 0 and facts["seen"] == DATA
    assert "attempt 1 of 2 failed (OSError: connection reset by the stand-in)" in error


@pytest.mark.parametrize("how", ["fails", "is stopped"])
def test_when_the_fetch_fails_those_who_wait_end_too_and_nothing_is_left(cloud, how):
    cloud.steer("fail", 1)
    cloud.steer("pause")
    first = cloud.begin(**KEYS, transfer_attempts=1)
    cloud.wait_for("paused")
    waiting = [cloud.begin(**KEYS) for _ in range(2)]
    for process in waiting:
        assert process.stderr.readline() == f"modelarts: data: waiting for process {first.pid}\n"
    if how == "is stopped":
        first.send_signal(signal.SIGTERM)
        assert cloud.end(first)[0] == 143
        reason = "it was stopped"
    else:
        (cloud.obs / "pause").unlink()
        reason = "download of obs://bucket/data failed 1 times (OSError: connection reset by the stand-in)"
        assert cloud.end(first) == (2, None, f"error: {reason}\n")
    for process in waiting:
        assert cloud.end(process) == (2, None, f"error: data: process {first.pid} failed: {reason}\n")
    assert leftovers(cloud) == [] and not cloud.data.exists()


def test_whoever_waits_too_long_ends(cloud):
    cloud.steer("pause")
    first = cloud.begin(**KEYS)
    cloud.wait_for("paused")
    code, _, error = cloud.run(**KEYS, transfer_timeout=0.5)
    assert code == 2
    assert f"error: data: process {first.pid} has not ended it within 0.5 s (transfer_timeout)" in error
    (cloud.obs / "pause").unlink()
    assert cloud.end(first)[0] == 0


class Files:
    """What a Bucket is given: every call fails until `good` of them."""

    def __init__(self, good):
        self.good, self.calls = good, 0

    def exists(self, url):
        return url != "obs://none"

    def is_directory(self, url):
        return False

    def copy(self, source, target):
        self.calls += 1
        with open(target, "w") as file:
            file.write("part")
            if self.calls < self.good:
                raise TimeoutError("slow")
            file.write(" and the rest")


@pytest.fixture
def waits(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def bucket(files, attempts=3):
    return Bucket(files, attempts=attempts, timeout=60, say=lambda line: None)


def test_attempts_are_bounded_with_growing_waits(tmp_path, waits):
    with pytest.raises(UserError, match=r"download of obs://x failed 7 times \(TimeoutError: slow\)"):
        bucket(Files(good=100), attempts=7).download("obs://x", tmp_path / "x")
    assert waits == [1, 2, 4, 8, 16, 30]
    bucket(Files(good=3)).download("obs://x", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "part and the rest"


def test_a_copy_that_hangs_is_left_behind(tmp_path):
    hangs = threading.Event()
    files = Files(good=1)
    files.copy = lambda source, target: hangs.wait(60)
    with pytest.raises(UserError, match=r"download of obs://x took longer than 0.1 s \(transfer_timeout\)"):
        Bucket(files, attempts=3, timeout=0.1, say=print).download("obs://x", tmp_path / "x")
    hangs.set()


def test_what_is_not_in_the_bucket_is_said_at_once(tmp_path, waits):
    with pytest.raises(UserError, match="obs://none does not exist in the bucket"):
        bucket(Files(good=1)).download("obs://none", tmp_path / "x")
    assert waits == []


def test_a_place_is_filled_for_its_run_and_source_alone(tmp_path):
    def place(**other):
        return Place(tmp_path / "x", **{"run": "1", "source": "a", **other})

    assert not place().is_filled()
    with pytest.raises(ZeroDivisionError):
        place().fill(lambda whole: whole.mkdir() or 1 / 0)
    assert not place().is_filled() and not (tmp_path / "x").exists()
    place().fill(lambda whole: whole.write_text("one"))
    assert place().is_filled() and place(run="2", keep=True).is_filled()
    assert not place(run="2").is_filled() and not place(source="b").is_filled()
    place(run="2").fill(lambda whole: whole.write_text("two"))
    assert (tmp_path / "x").read_text() == "two" and not place().is_filled()
    (tmp_path / "x").unlink()
    assert not place(run="2").is_filled()
    assert {path.name for path in tmp_path.iterdir()} == {".x.transfer.json"}


def test_a_killed_process_keeps_no_lock(tmp_path):
    """The lock is the kernel's: whatever ends the process ends it."""
    code = """
import time
from src.model_utils.modelarts.job_lock import Job
with Job("j", say=lambda line: print(line, flush=True)) as job, job.hold("x", timeout=60):
    print("held", flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    other = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == f"x: waiting for process {holder.pid}\n"
    holder.kill()
    assert other.stdout.readline() == f"x: process {holder.pid} died in the middle; this one takes over\n"
    assert other.stdout.readline() == "held\n"
    other.kill()
    holder.wait(), other.wait()
