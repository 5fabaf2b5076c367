"""Putting the files of an export where they belong: all of them, or none."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`: on the same file system, so that renaming works.

    Raises:
        UserError: the folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=".export.")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    with folder as name:
        yield Path(name)


def place(moves: Mapping[Path, Path], *, scratch: Path) -> None:
    """Renames every source, a file or a folder of weights, to its target in the order given.

    A file takes its place in one step, a folder just after the old one has left it. If one of them fails,
    what was there before comes back.

    Args:
        moves: source -> target, all on the file system of `scratch`.
        scratch: a folder for what is replaced.

    Raises:
        UserError: a target cannot be replaced; every target is then as it was.
    """
    for source, target in moves.items():
        _check(source, target)
    undo: list[tuple[Path, Path]] = []
    try:
        for number, (source, target) in enumerate(moves.items()):
            _settle(source)
            kept = scratch / f"replaced.{number}"
            if target.exists():
                _keep(target, kept)
                undo.append((kept, target))
            source.replace(target)
            undo.append((target, source))
    except BaseException as error:
        for now, before in reversed(undo):
            now.replace(before)
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _check(source: Path, target: Path) -> None:
    if source.is_dir():
        if target.exists() and not all(re.fullmatch(r"data_\d+", file.name) for file in target.iterdir()):
            raise UserError(
                f"{target}: holds files that no export wrote; move them or export to another name"
            )
    elif target.is_dir():
        raise UserError(f"{target}: is a folder; name the file to write")


def _settle(source: Path) -> None:
    """Written to the disk, and readable by all, as what a user writes."""
    if source.is_dir():
        source.chmod(0o755)
    for file in source.iterdir() if source.is_dir() else [source]:
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.chmod(0o644)


def _keep(target: Path, kept: Path) -> None:
    """A folder is moved away; a file gets a second name, so that the first can be replaced in one step."""
    if target.is_dir():
        target.rename(kept)
        return
    try:
        kept.hardlink_to(target)
    except OSError:  # a file system without links
        shutil.copy2(target, kept)
