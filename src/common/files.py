# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole or absent: made in a temporary folder beside the target and renamed."""

import ctypes
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import lock
from .errors import UserError

PREFIX = ".quartet-tmp-"  # of the temporary folders
LOCK = ".quartet-lock"  # the lock file in a folder that one process at a time works in
MARKER = ".quartet-made"  # in a folder that we made: only such a folder is ever removed or replaced

_REPLACED = "old"  # in a temporary folder: where a folder waits whose place a new one is taking
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h, linux/fs.h


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
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path for the file `path`, and renames it to `path` if the block ends well.

    The temporary file has the name of `path`, in a temporary folder beside it: some writers choose the format
    by the suffix, or leave more files beside. A reader sees the old file or the new one, never a part; the
    data is on the disk before the name changes. The next call in this folder removes what a killed one left.

    Raises:
        UserError: the folder cannot be written, or the disk is full. `path` is then as it was.
    """
    path = Path(path)
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        _flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)


@contextmanager
def new_folder(target: str | os.PathLike, *, replace: bool = False) -> Iterator[Path]:
    """Gives an empty temporary folder to fill, and renames it to `target` if the block ends well.

    What a killed call left, the next call in the same parent removes.

    Args:
        target: the folder to make. Nothing, or an empty folder, may stand there.
        replace: a folder made with `replace` may stand there too. It stays whole until the new one is
            complete, and is then replaced in one step (two on a file system that cannot exchange names).
            Such a folder gets the file MARKER with the names of all that was made: a folder that holds
            anything else is not replaced.

    Raises:
        UserError: something else stands there, or the folder cannot be written. What stands there stays.
    """
    target = Path(os.path.realpath(target) if os.path.islink(target) else target)
    with temporary_folder(target) as folder:
        _check_free(target, replace)
        made = folder / "new" / target.name
        made.mkdir(parents=True)
        yield made
        if replace:
            names = _names_in(made)
            (made / MARKER).write_text(json.dumps(names), encoding="ascii")
        _check_free(target, replace)
        if not is_free(target):  # the old data goes: the new must be on the disk first
            for name in [*names, MARKER]:
                _flush(made / name)
        put_in_place(made, target, folder)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Within it no other process that asks works in `folder`, which is made; leftovers are removed first.

    Raises:
        UserError: the folder cannot be made or locked.
    """
    with lock.locked(folder / LOCK):
        _remove_leftovers(folder)
        yield


class Unfinished:
    """A folder that is filled over several calls, see `unfinished_folder`.

    Attributes:
        folder: where to write.
        done: the names of the steps that are complete.
    """

    def __init__(self, folder: Path, done: set[str]):
        self.folder, self.done = folder, done

    def finish(self, name: str) -> None:
        """Notes that a step is complete: it is not in need of being done again after a kill."""
        with (self.folder / MARKER).open("a", encoding="utf-8") as marker:
            marker.write(f"{name}\n")
        self.done.add(name)


@contextmanager
def unfinished_folder(target: Path, source: str) -> Iterator[Unfinished]:
    """Gives the folder `unfinished_path(target)`, and renames it to `target` if the block ends well.

    If the block fails or the process is killed, the folder waits for the next call. Its MARKER has a line for
    `source` and one for each step that is complete. Call it under a lock.

    Args:
        target: what is to be made; nothing, or an empty folder, may stand there.
        source: one line that says what it is made from; the folder of another source is made anew.

    Raises:
        UserError: something stands at `target`, a folder that we did not mark is in the way, or the disk
            cannot be written.
    """
    folder = unfinished_path(target)
    marker, done = folder / MARKER, set()
    try:
        for path in (target, folder):
            if not (is_free(path) or (path == folder and marker.is_file())):
                raise UserError(f"{path} exists already; remove it or choose another folder")
        if marker.is_file():
            named, *done = marker.read_text(encoding="utf-8").split("\n")
            if named != source:
                discard_unfinished(target)
        if not marker.is_file():
            done = []
            with temporary_folder(folder) as temporary:
                made = temporary / "new"
                made.mkdir()
                (made / MARKER).write_text(f"{source}\n", encoding="utf-8")
                put_in_place(made, folder, temporary)
        yield Unfinished(folder, set(done[:-1]))  # after the last line end a kill may have left half a name
        folder.rename(target)
        (target / MARKER).unlink()
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free space, and run this again to go on"
        ) from error


def unfinished_path(target: Path) -> Path:
    """Where `unfinished_folder` gathers what becomes `target`: hidden, so that it is no folder of a class."""
    return target.with_name(f".quartet-unfinished-{target.name}")


def discard_unfinished(target: Path) -> None:
    """Removes what `unfinished_folder` left for `target`."""
    folder = unfinished_path(target)
    if (folder / MARKER).is_file():
        _remove_marked(folder)


def is_free(target: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    if target.is_dir() and not target.is_symlink():
        return not any(target.iterdir())
    return not os.path.lexists(target)


def _check_free(target: Path, replace: bool) -> None:
    if is_free(target):
        return
    if replace and (target / MARKER).is_file():
        try:
            ours = set(json.loads((target / MARKER).read_text(encoding="ascii")))
        except (OSError, ValueError, TypeError):
            ours = set()
        others = [name for name in _names_in(target) if name not in ours]
        if not others:
            return
        raise UserError(
            f"{target} also holds {others[0]}, which is not replaced; move it or choose another name"
        )
    raise UserError(f"{target} exists already; remove it or choose another name")


def _names_in(folder: Path) -> list[str]:
    """All files below `folder`, relative to it, without its MARKER."""
    files = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    return sorted({os.path.relpath(file, folder) for file in files} - {MARKER})


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Gives a folder beside `target` that is removed at the end; leftovers of killed calls are removed first.

    It holds a file MARKER that is locked as long as the process lives, on this host or another one.

    Raises:
        UserError: for an OSError in the block too, that `target` cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent)
        folder, handle = _make_temporary(target)
        try:
            yield folder
        finally:
            _discard(folder)
            os.close(handle)


def put_in_place(made: Path, target: Path, folder: Path) -> None:
    """Renames `made`, in `folder` of `temporary_folder`, to `target`. What stands there goes to `folder`.

    It goes in the same step where the file system can exchange two names, else in the step before.
    """
    if is_free(target):
        made.rename(target)
        return
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # of Linux; Python has no call for it
    if rename and rename(_AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
        return
    (folder / _REPLACED).mkdir()
    target.rename(folder / _REPLACED / target.name)
    made.rename(target)


def _make_temporary(target: Path) -> tuple[Path, int]:
    """A new temporary folder, and its MARKER, open and locked."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{PREFIX}{target.name[:40]}-"))
        try:
            handle = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process took the empty folder for a leftover
            continue
        if lock.take(handle) is not False and (folder / MARKER).exists():
            return folder, handle
        os.close(handle)


def _remove_leftovers(parent: Path) -> None:
    """Removes what killed calls left in `parent`: only what has our prefix and marker and is not locked."""
    with os.scandir(parent) as entries:
        found = [
            Path(e.path) for e in entries if e.name.startswith(PREFIX) and e.is_dir(follow_symlinks=False)
        ]
    for folder in found:
        try:
            handle = os.open(folder / MARKER, os.O_RDWR)
        except OSError:
            with suppress(OSError):  # killed before there was a marker: removed only if it is empty
                folder.rmdir()
            continue
        # A file system without locks cannot say whether the other process lives: then nothing is removed.
        if lock.take(handle):
            _discard(folder)
        os.close(handle)


def _discard(folder: Path) -> None:
    """Removes a temporary folder, its marker last. What was moved there goes back if its place is free."""
    with suppress(OSError):  # what cannot go now, the next call removes
        old = folder / _REPLACED
        for moved in old.iterdir() if old.is_dir() else ():
            if not os.path.lexists(folder.parent / moved.name):
                moved.rename(folder.parent / moved.name)
        _remove_marked(folder)


def _remove_marked(folder: Path) -> None:
    """Removes a folder with a MARKER, which goes last: what a kill leaves is still marked."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    (folder / MARKER).unlink()
    folder.rmdir()


def _flush(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def read_text(path: str | os.PathLike, mend: str, *, key: str = "") -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark. Raises UserError: `key: ..., mend`."""
    try:
        data = Path(path).read_bytes()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        of_key = f"{key}: " if key else ""
        raise UserError(f"{of_key}cannot read {path}{relative_to(path)} ({reason}); {mend}") from error


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds; None: there is no such file. Raises UserError: it is damaged."""
    if not os.path.exists(path):
        return None
    text = read_text(path, "restore it, or remove it")
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it, or remove it") from error


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
