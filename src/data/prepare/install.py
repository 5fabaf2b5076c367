"""Putting a prepared data set in place: one process at a time, and the whole folder or nothing."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...common import lock
from ...common.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes `folder` if need be and holds it for this process; a second one waits until the first is done.

    The lock leaves no file behind and ends with the process, see `common.lock`.

    Raises:
        UserError: the folder cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    with lock.locked(folder):
        yield


def occupied(target: Path) -> bool:
    """Whether something is in the way of `install`: an empty folder is not."""
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def install(target: Path, fill: Callable[[Path], None]) -> None:
    """Fills a temporary folder beside `target` and renames it to that name.

    Call it under `locked(target.parent)`: temporary folders that a killed process left are removed.

    Raises:
        UserError: what `fill` raises, the target exists already, or the disk cannot be written.
    """
    for stale in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            temporary.chmod(0o755)
            fill(temporary)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")
