"""Copies between a bucket and this server: bounded in time and attempts, and whole or not at all."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import write_json

THREADS = 16


class Bucket:
    """Folders and files behind `moxing.file`.

    Args:
        files: the module `moxing.file`, or what has its exists, is_directory, copy and copy_parallel.
        attempts: how often a transfer is tried.
        timeout: the longest time of one attempt, seconds; one that takes longer is not tried again.
        say: receives the lines for the user.
    """

    def __init__(self, files: Any, *, attempts: int, timeout: float, say: Callable[[str], None]):
        self._files, self._attempts, self._timeout, self._say = files, attempts, timeout, say

    def download(self, url: str, target: Path, *, into: bool = False) -> None:
        """Copies a folder or a file to `target`, which a failed attempt leaves in any state.

        Args:
            into: a file keeps its name, in the folder `target`.

        Raises:
            UserError: there is nothing at `url`, or every attempt failed.
        """

        def copy() -> None:
            _remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not self._files.exists(url):
                raise UserError(f"{url} does not exist in the bucket, or this account may not read it")
            if self._files.is_directory(url):
                self._copy_folder(url, str(target))
            else:
                place = target / url.rstrip("/").rpartition("/")[2] if into else target
                place.parent.mkdir(parents=True, exist_ok=True)
                self._files.copy(url, str(place))

        self._try(f"download of {url}", copy)
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            raise UserError(f"{url} is empty; give the folder that holds the files")

    def upload(self, folder: Path, url: str) -> None:
        """Copies what is in `folder` to `url`. Raises UserError when every attempt failed."""
        self._try(f"upload to {url}", lambda: self._copy_folder(str(folder), url))

    def _copy_folder(self, source: str, target: str) -> None:
        # Threads: processes of moxing's own would be forked from one in which MindSpore runs threads.
        self._files.copy_parallel(source, target, threads=THREADS, is_processing=False)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                self._within_the_time(what, work)
                return
            except UserError:
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                if attempt == self._attempts:
                    raise UserError(f"{what} failed {attempt} times ({reason})") from error
                wait = min(2 ** (attempt - 1), 30)
                self._say(
                    f"{what}: attempt {attempt} of {self._attempts} failed ({reason}), next in {wait} s"
                )
                time.sleep(wait)

    def _within_the_time(self, what: str, work: Callable[[], None]) -> None:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        # A copy that hangs in the network cannot be ended, only left behind.
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self._timeout)
        if thread.is_alive():
            raise UserError(f"{what} took longer than {self._timeout:g} s (transfer_timeout)")
        if errors:
            raise errors[0]


class Place:
    """A local folder or file that is filled from the bucket, with a note of it beside.

    The note says for which run and from where the place was filled. It is written before the filling begins
    and once more when the whole is there, so that a part is never taken for the whole, and what others put
    there is never replaced.

    Args:
        target: the folder or file.
        run: the run that it is filled for.
        source: where from, as text.
        keep: what was filled for an earlier run from the same source serves as well.
    """

    def __init__(self, target: Path, *, run: str, source: str, keep: bool = False):
        self.target, self._keep = target, keep
        self._facts = {"run": run, "source": source, "whole": True}
        self._note = target.parent / f".{target.name}.transfer.json"

    def is_filled(self) -> bool:
        """Whether the whole is there, from this source and for this run."""
        note = self._read()
        if note and self._keep:
            note["run"] = self._facts["run"]
        return note == self._facts and self.target.exists()

    def fill(self, write: Callable[[Path], None]) -> None:
        """Calls `write` with a temporary path beside the target and renames it to the target.

        What an earlier transfer put there is replaced; what a killed one left is removed.

        Raises:
            UserError: something else is at the target, the disk cannot be written, or as `write`.
        """
        target = self.target
        if self._read() is None and target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise UserError(
                f"{target} exists already and is not from a transfer; remove it or name another place"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for stale in target.parent.glob(f".{target.name}.part-*"):
                _remove(stale)
            write_json(self._note, {**self._facts, "whole": False})
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.part-"))
            try:
                whole = temporary / "whole"
                write(whole)
                if target.exists():
                    target.rename(temporary / "before")
                whole.rename(target)
            finally:
                _remove(temporary)
            write_json(self._note, self._facts)
        except OSError as error:
            raise UserError(
                f"cannot write {target}: {error.strerror or error}; free space or name another place"
            ) from error

    def _read(self) -> dict | None:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._note.read_text(encoding="utf-8"))
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
