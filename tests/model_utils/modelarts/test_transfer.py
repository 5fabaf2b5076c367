# SPDX-License-Identifier: Apache-2.0
"""Several processes, and transfers that are slow, fail, hang or are killed: the data is whole or absent."""

import json
import os
import signal
import threading
import time

import pytest

from src.common.errors import UserError
from src.model_utils.modelarts.transfer import Bucket, fetch_once
from tests.model_utils.modelarts.cloud import DATA, tree

KEYS = {"data_url": "obs://bucket/data"}


def leftovers(cloud):
    return [path.name for path in cloud.server.glob(".quartet-*")]


def test_of_four_processes_one_fetches_and_one_uploads(cloud):
    def begin(rank):
        return cloud.begin(**KEYS, train_url="obs://bucket/out", environment={"RANK_ID": str(rank)})

    cloud.steer("pause")
    ranks = [begin(0)]
    cloud.wait_for("paused")
    ranks += [begin(rank) for rank in (1, 2, 3)]
    for process in ranks[1:]:
        assert process.stderr.readline() == f"modelarts: data: waiting for process {ranks[0].pid}\n"
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


def test_what_the_dead_left_stops_nobody(cloud):
    """A number of a process that was taken again by a living one, and a failure of another time."""
    job = cloud.server / "tmp" / f"quartet-{os.getuid()}" / "job-1"
    job.mkdir(parents=True)
    (job / "run").write_text("earlier")
    for path in (cloud.server / ".data.transfer.lock", job / "joining", job / "upload"):
        path.write_text(str(os.getpid()))
    note = {"state": "failed", "pid": os.getpid(), "reason": "long ago", "run": "x", "source": "y"}
    (cloud.server / ".data.transfer.json").write_text(json.dumps(note))
    code, facts, error = cloud.run(
        **KEYS, train_url="obs://bucket/out", environment={"JOB_ID": "job-1"}, transfer_timeout=60
    )
    assert code == 0, error
    assert facts["seen"] == DATA and "waiting" not in error
    assert (cloud.bucket / "out" / "run").is_dir()


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
    target, said = tmp_path / "x", []

    def fetch(text, *, run="1", source="a", keep=False):
        """Whether the place was filled."""
        before = len(said)
        fetch_once(
            "data", target, lambda whole: whole.write_text(text), run=run, source=source, keep=keep,
            timeout=60, say=said.append,
        )  # fmt: skip
        return said[before:] == [f"data: fetched to {target}"]

    with pytest.raises(ZeroDivisionError):
        fetch_once(
            "data", target, lambda whole: whole.mkdir() or 1 / 0, run="1", source="a", timeout=60, say=print
        )
    assert not target.exists()
    assert fetch("one")
    assert not fetch("two") and not fetch("two", run="2", keep=True)
    assert target.read_text() == "one"
    assert fetch("two", run="2") and target.read_text() == "two"
    assert fetch("three", run="2", source="b") and fetch("four")
    target.unlink()
    assert fetch("five") and target.read_text() == "five"
    assert {path.name for path in tmp_path.iterdir()} == {"x", ".x.transfer.json"}
