# SPDX-License-Identifier: Apache-2.0
"""A picture index on the disk: one SQLite file. What is committed stays whole, whenever a build is killed.

Each row carries a checksum of itself, and the state how many rows there are. All of it is checked whenever it
is read, by a search as by a build.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..common.errors import UserError

_PATIENCE = 60  # seconds that a reader waits for a commit, and a commit for readers
_COLUMNS = "path, size, mtime_ns, content, reason, vector"
_OF_THE_DISK = ("FULL", "IOERR", "READONLY", "CANTOPEN", "PERM", "AUTH")  # SQLite's result codes


class Picture(NamedTuple):
    """A picture file when it was read, and its embedding."""

    path: bytes
    size: int
    mtime_ns: int
    content: bytes  # SHA-256 of the file
    reason: bytes  # why it has no vector, in UTF-8; empty if it has one
    vector: bytes  # (D,) float16; empty if it has none

    @property
    def stamp(self) -> tuple[int, int]:
        """What tells without reading it that a file has not changed."""
        return self.size, self.mtime_ns


class Store:
    """An open index, to be used in a `with`.

    Args:
        path: the file.
        new: what the embeddings depend on, for a file that is to be made.

    Raises:
        UserError: here and in all methods: the file cannot be read or written, or it is damaged.
    """

    def __init__(self, path: Path, *, new: Mapping[str, Any] | None = None):
        self.path = path
        with self._in_words():
            where = f"{path.absolute().as_uri()}?mode={'rw' if new is None else 'rwc'}"
            self._db = sqlite3.connect(where, uri=True, timeout=_PATIENCE, isolation_level=None)
            self._db.text_factory = bytes  # a flipped bit may make a text of what was none
        if new is not None:
            with self.transaction("IMMEDIATE") as db:
                db.execute(f"CREATE TABLE pictures ({_COLUMNS}, checksum)")
                db.execute("CREATE TABLE state (identity, reopen, pictures, checksum)")
                db.execute("INSERT INTO state VALUES (?, ?, ?, ?)", _state(new, {}, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    @contextmanager
    def transaction(self, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
        """Within it, all is read as of one moment, or written whole or not at all."""
        with self._in_words(), self._db:
            self._db.execute(f"BEGIN {kind}")
            yield self._db

    def state(self) -> tuple[dict[str, Any], dict[str, Any], int]:
        """The identity, what else to remember, and the number of pictures."""
        with self._in_words():
            rows = self._db.execute("SELECT identity, reopen, pictures, checksum FROM state").fetchall()
        if len(rows) != 1 or _checksum(rows[0][:3]) != rows[0][3]:
            raise self.damaged()
        identity, reopen, count, _ = rows[0]
        return json.loads(identity), json.loads(reopen), count

    def pictures(self) -> Iterator[tuple[int, Picture]]:
        """All pictures with the numbers of their rows."""
        count, paths = self.state()[2], set()
        with self._in_words():
            rows = self._db.execute(f"SELECT rowid, {_COLUMNS}, checksum FROM pictures")
            for row, *values, checksum in rows:
                if _checksum(values) != checksum or values[0] in paths or len(paths) == count:
                    raise self.damaged()
                paths.add(values[0])
                yield row, Picture(*values)
        if len(paths) < count:
            raise self.damaged()

    def vector(self, row: int) -> bytes:
        """The vector in a row."""
        with self._in_words():
            return self._db.execute("SELECT vector FROM pictures WHERE rowid = ?", (row,)).fetchone()[0]

    def write(self, put: Iterable[Picture], drop: Iterable[int], reopen: Mapping[str, Any]) -> None:
        """Adds pictures, then takes rows out, and sets what else to remember, all at once."""
        with self.transaction("IMMEDIATE") as db:
            identity, _, count = self.state()
            rows = ((*picture, _checksum(picture)) for picture in put)
            count += db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", rows).rowcount
            rows = ((row,) for row in drop)
            count -= db.executemany("DELETE FROM pictures WHERE rowid = ?", rows).rowcount
            state = _state(identity, reopen, count)
            db.execute("UPDATE state SET identity = ?, reopen = ?, pictures = ?, checksum = ?", state)

    def damaged(self) -> UserError:
        """What to raise where the file does not hold what was written."""
        return UserError(f"{self.path} is damaged; build the index with --rebuild")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a message may quote damaged bytes
            name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
            if name.startswith("BUSY"):
                raise UserError(f"{self.path} is in use by another process; try again later") from error
            if name.startswith(_OF_THE_DISK):
                mend = "free space, or check its permissions"
                raise UserError(f"cannot read or write {self.path}: {error}; {mend}") from error
            raise self.damaged() from error


def _state(identity: Mapping[str, Any], reopen: Mapping[str, Any], count: int) -> tuple:
    state = json.dumps(identity).encode(), json.dumps(reopen).encode(), count
    return *state, _checksum(state)


def _checksum(values: Iterable[Any]) -> bytes:
    total = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        total.update(b"%d " % len(data))
        total.update(data)
    return total.digest()
