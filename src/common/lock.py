"""One process at a time: a lock of the kernel's on a file or folder, which ends with its process."""

import errno
import fcntl
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

POLL_SECONDS = 0.2

# What flock says on a file system that has no locks, such as some network and FUSE mounts.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF)


class HeldError(UserError):
    """Another process holds the lock.

    Attributes:
        pid: the process's number; None if it is not known, as for a locked folder.
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

    A folder that is there is locked itself, and nothing is left in it. Any other path is a lock file: it is
    made, holds the process's number, and is removed at the end. A killed process holds nothing: the kernel
    ends the lock, and a file that it left is taken over. On a file system without locks the block runs
    after a warning.

    Args:
        path: an existing folder, or the name of a lock file; its folder is made.
        timeout: the longest wait, seconds; 0: refuse at once.
        waiting: called once, with the holder's process number if it is known, before a wait.

    Raises:
        HeldError: another process held it for all of `timeout`.
        UserError: the file or folder cannot be opened.
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
        if not _is_folder(handle):
            path.unlink(missing_ok=True)
        os.close(handle)


def _is_folder(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def _take(path: Path) -> int | None:
    """The open and locked file or folder; None where another process holds it."""
    try:
        if path.is_dir():
            handle = os.open(path, os.O_RDONLY)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise UserError(f"cannot lock {path}: {error.strerror}; choose another folder") from error
        logging.getLogger("quartet").warning(
            "%s: this file system has no locks (%s); do not start the same work twice", path, error.strerror
        )
    if _is_folder(handle):
        return handle
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
