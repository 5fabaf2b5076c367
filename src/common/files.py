"""Files that are whole or absent: written to a temporary name beside the target and renamed."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
