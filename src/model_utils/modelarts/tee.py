"""A copy of what a process prints."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ...common.errors import UserError


class _Tee:
    """Writes to a stream and to a file, and is the stream in all else."""

    def __init__(self, stream: TextIO, file: TextIO):
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def copied_to(path: Path) -> Iterator[TextIO]:
    """Within it, what Python prints goes to the end of the file `path` too; gives the open file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another output_path") from error
    copies = _Tee(sys.stdout, file), _Tee(sys.stderr, file)
    with file, contextlib.redirect_stdout(copies[0]), contextlib.redirect_stderr(copies[1]):
        yield file
