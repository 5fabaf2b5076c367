# SPDX-License-Identifier: Apache-2.0
"""One process at a time: a lock of the kernel's on a file, which ends with its process."""

import errno
import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

log = logging.getLogger("quartet")

POLL_SECONDS = 0.2

# What flock says on a file system that has no locks, such as some network and FUSE mounts.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF)


class HeldError(UserError):
    """Another process holds the lock.

    Attributes:
        pid: the process's number; None if it is not known.
    """

    def __init__(self, path: Path, pid: int | None):
        self.pid = pid
        super().__init__(f"{path} is in use by {f'process {pid}' if pid else 'another process'}")


@contextmanager
def locked(
    path: str | os.PathLike,
    *,
    timeout: float = math.inf,
    waiting: Callable[[int | None], None] = lambda pid: None,
) -> Iterator[None]:
    """Holds `path` for this process: a second holder, in this process or another, waits or is refused.

    The lock file is made, holds the process's number, and is removed at the end. A killed process holds
    nothing: the kernel ends the lock, and a file that it left is taken over. On a file system without locks
    the block runs after a warning.

    Args:
        path: the name of the lock file; its folder is made.
        timeout: the longest wait, seconds; 0: refuse at once.
        waiting: called once, with the holder's process number if it is known, before a wait.

    Raises:
        HeldError: another process held it for all of `timeout`.
        UserError: the file cannot be opened.
    """
    path, deadline, said = Path(path), time.monotonic() + timeout, False
    handle = _take(path)
    while handle is None:
        if time.monotonic() >= deadline:
            raise HeldError(path, _holder(path))
        if not said:
            waiting(_holder(path))
            said = True
        time.sleep(POLL_SECONDS)
        handle = _take(path)
    try:
        yield
    finally:
        # While it is still held: no other process can have made a new file of this name.
        path.unlink(missing_ok=True)
        os.close(handle)


def take(handle: int) -> bool | None:
    """Locks an open file until it is closed; False if it is locked already, None if there are no locks here.

    The file must be open for writing: on NFS the lock is then the server's, and holds against other hosts. A
    lock on a folder would hold on one host only.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _take(path: Path) -> int | None:
    """The open and locked file; None where another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or path}: {error.strerror or error}; "
            "free space or choose another folder"
        ) from error
    try:
        taken = take(handle)
    except OSError as error:
        os.close(handle)
        raise UserError(f"cannot lock {path}: {error.strerror}; choose another folder") from error
    if taken is False:
        os.close(handle)
        return None
    if taken is None:
        log.warning("%s: this file system has no locks; do not start the same work twice", path)
    # The holder before may have removed the file between the open and the lock.
    try:
        current = os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        current = False
    if not current:
        os.close(handle)
        return _take(path)
    with suppress(OSError):  # on a full disk the number is missing, the lock holds all the same
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
