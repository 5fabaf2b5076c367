"""Files and folders that are whole or absent: made under a temporary name beside the target and renamed.

A temporary name begins with `.quartet-tmp-` and the target's name. Its process holds a lock on it for as long
as it lives. The next call for the same target removes what a killed process left, and nothing else.
"""

import ctypes
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError

TEMPORARY = ".quartet-tmp-"  # what each temporary name begins with
_MARK, _NEW, _OLD = "made-by-quartet", "new", "old"  # in a temporary folder


def checksum(*paths: str | os.PathLike, kind: str = "sha256") -> str:
    """The hash, in hexadecimal, of what files hold, one after the other. Raises OSError."""
    total = hashlib.new(kind, usedforsecurity=False)
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def relative_to(path: str | os.PathLike) -> str:
    """` (relative to FOLDER)` of a path that is: what a message says behind one that is not there."""
    return "" if Path(path).is_absolute() else f" (relative to {Path.cwd()})"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it, an OSError is the one line that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another output_path"
        ) from error


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path in the folder of `path`, and renames it to `path` if the block ends well.

    The temporary name keeps the suffix of `path`, since some writers choose the format by it. A reader sees
    the old file or the new one, never a part; the data is on the disk before the name changes.

    Raises:
        UserError: the folder cannot be written, or the disk is full. `path` is then as it was.
    """
    path = Path(path)
    with _writing_beside(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=path.suffix)
        temporary = Path(name)
        try:
            _hold(handle)
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def new_folder(target: str | os.PathLike, *, replace: bool = False) -> Iterator[Path]:
    """Gives an empty temporary folder beside `target`, which becomes `target` if the block ends well.

    A killed process leaves the old folder or the new one, whole. The two are swapped in one step where the
    file system can do that. Elsewhere the old one leaves first; if the process is killed then, the next call
    brings it back. What is on the disk after a loss of power is up to the caller.

    Args:
        target: a link is followed.
        replace: a folder that stands there gives way, with all that it holds: check before that it is ours.

    Raises:
        UserError: the target is a file, or a folder that holds something and is not to be replaced; or the
            disk cannot be written. What was at `target` is then as it was.
    """
    target = Path(os.path.realpath(target))
    with _writing_beside(target):
        if target.exists() and not target.is_dir():
            raise UserError(f"{target}: is a file; give the name of a folder")
        if not replace and target.is_dir() and any(target.iterdir()):
            raise UserError(f"{target}: is there already; move it, or choose another folder")
        holder = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target)))
        with (holder / _MARK).open("w") as mark:
            _hold(mark.fileno())
            try:
                new = holder / _NEW
                new.mkdir()
                yield new
                if not (replace and target.is_dir() and _exchange(new, target)):
                    if replace and target.is_dir():
                        target.rename(holder / _OLD)
                    new.rename(target)
            finally:
                _remove_holder(holder, target)


def _prefix(path: Path) -> str:
    return f"{TEMPORARY}{path.name}-"


@contextmanager
def _writing_beside(path: Path) -> Iterator[None]:
    """Makes the folder of `path`, removes what killed processes left of it there, and tells an OSError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(path)
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _hold(handle: int) -> None:
    """Locks a new file for as long as it is open. A file system without locks has it unlocked."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_left_overs(path: Path) -> None:
    ours = re.compile(re.escape(_prefix(path)) + r"[a-z0-9_]{8}(\.\w+)?")
    with os.scandir(path.parent) as entries:
        left = [Path(entry.path) for entry in entries if ours.fullmatch(entry.name)]
    for one in left:
        with suppress(OSError):
            one.rmdir()  # empty, it has no mark yet, or no more
        with suppress(OSError):  # it is gone, another user's, or held by a process that lives
            handle = os.open(one / _MARK if one.is_dir() else one, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if one.is_dir():
                    _remove_holder(one, path)
                else:
                    one.unlink()
            finally:
                os.close(handle)


def _remove_holder(holder: Path, target: Path) -> None:
    """Removes a temporary folder; the folder that it replaces comes back if no other took its place."""
    if (holder / _OLD).is_dir() and not target.exists():
        (holder / _OLD).rename(target)  # where that fails, nothing is removed
    for name in (_NEW, _OLD):
        shutil.rmtree(holder / name, ignore_errors=True)
    shutil.rmtree(holder, ignore_errors=True)  # the mark last: what is left of a killed removal is marked


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step. False where the system or the disk cannot do that."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    here, both_must_exist = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return swap is not None and swap(here, bytes(one), here, bytes(other), both_must_exist) == 0


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text to `path`, whole or not at all. Raises UserError as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON text. NaN and the infinities, which JSON does not have, become null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `to_json(value)`, indented, to `path`, as `write_text` does."""
    write_text(path, to_json(value, indent=2) + "\n")
