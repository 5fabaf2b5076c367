# SPDX-License-Identifier: Apache-2.0
"""A lock holds against other processes and other holders in this one, and a killed process holds nothing."""

import errno
import fcntl
import os
import signal
import stat
import threading

import pytest

from src.common import lock
from src.common.errors import UserError
from src.common.lock import HeldError, locked


def _held_by_another_process(path):
    """A process that has `path` locked and waits for its end."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(path):
            os.write(told, b"1")
            signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return child


def _kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "run" / ".lock"
    child = _held_by_another_process(path)
    try:
        with pytest.raises(HeldError) as refused, locked(path, timeout=0):
            pass
        assert refused.value.pid == child and str(refused.value) == f"{path} is in use by process {child}"
    finally:
        _kill(child)
    assert path.exists()  # what a killed process leaves holds nothing
    with locked(path, timeout=0):
        assert path.read_text() == str(os.getpid())
    assert not path.exists()


def test_a_second_holder_in_this_process_is_refused(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(HeldError), locked(tmp_path / "lock", timeout=0):
        pass


def test_a_second_one_waits_and_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    release, entered, waits = threading.Event(), threading.Event(), []

    def hold():
        with locked(tmp_path / "lock"):
            entered.set()
            release.wait()

    def waiting(pid):
        waits.append(pid)
        release.set()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with locked(tmp_path / "lock", waiting=waiting):
        assert release.is_set()
    thread.join()
    assert waits == [os.getpid()]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_holder_removed_in_between_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    opened = []

    def flock(handle, operation):
        if not opened:
            path.unlink()
        opened.append(handle)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(path):
        assert len(opened) == 2
        assert path.read_text() == str(os.getpid())


def test_without_locks_in_the_file_system_the_work_is_done_with_a_warning(tmp_path, monkeypatch, caplog):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    monkeypatch.setattr(lock.log, "propagate", True)
    with locked(tmp_path / "lock"):
        pass
    assert "has no locks" in caplog.text


def test_what_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), locked(tmp_path / "file" / "lock"):
        pass


def test_a_failure_inside_ends_the_lock(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path / "lock"):
        raise ValueError
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_the_lock_is_on_a_file_that_is_open_for_writing(tmp_path, monkeypatch):
    # NFS makes a lock of the server's of this one only: one on a folder holds on one host.
    modes = []

    def flock(handle, operation):
        modes.append(
            (stat.S_ISREG(os.fstat(handle).st_mode), fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        )

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path / "lock"):
        pass
    assert modes == [(True, os.O_RDWR)]
