# SPDX-License-Identifier: Apache-2.0
"""Copies between a bucket and this server: bounded in time and attempts, and whole or not at all."""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import put_in_place, temporary_folder, write_json
from ...common.lock import HeldError, locked

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


def fetch_once(
    what: str,
    target: Path,
    write: Callable[[Path], None],
    *,
    run: str,
    source: str,
    keep: bool = False,
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Fills `target` by `write`, once for a run, in one process of this server while the others wait.

    `write` gets a temporary path beside the target, which is renamed when it is whole. A note beside it says
    for which run and from where, and whether the whole is there: a part is never taken for the whole, and
    what others put there is never replaced. Where the process that was waited for failed, this one fails as
    well; where it died, this one takes over.

    Args:
        what: names the work in messages.
        target: a folder or file.
        run: the run that it is filled for.
        source: where from, as text.
        keep: what was filled for an earlier run from the same source serves as well.
        timeout: the longest wait for another process, seconds.
        say: receives the lines for the user.

    Raises:
        UserError: something else is at the target, the disk cannot be written, the other process failed or
            did not end in time; or as `write`.
    """
    note = target.parent / f".{target.name}.transfer.json"
    earlier = _read(note)
    try:
        with locked(
            note.with_suffix(".lock"), timeout=timeout,
            waiting=lambda pid: say(f"{what}: waiting for process {pid}"),
        ):  # fmt: skip
            found = _read(note)
            same = found.get("source") == source and (keep or found.get("run") == run)
            if same and found.get("state") == "whole" and target.exists():
                say(f"{what}: {target} is filled already")
                return
            if found != earlier and found.get("state") == "failed":
                raise UserError(f"{what}: process {found['pid']} failed: {found['reason']}")
            if found.get("state") == "begun":
                say(f"{what}: process {found['pid']} died in the middle; this one takes over")
            if not found and target.exists() and not (target.is_dir() and not any(target.iterdir())):
                raise UserError(
                    f"{target} exists already and is not from a transfer; remove it or name another place"
                )
            facts = {"source": source, "run": run, "pid": os.getpid(), "began": time.time_ns()}
            write_json(note, {**facts, "state": "begun"})
            try:
                _fill(target, write)
            except BaseException as error:
                reason = " ".join(str(error).split()) if isinstance(error, Exception) else "it was stopped"
                write_json(note, {**facts, "state": "failed", "reason": reason})
                raise
            write_json(note, {**facts, "state": "whole"})
            say(f"{what}: fetched to {target}")
    except HeldError as error:
        raise UserError(
            f"{what}: process {error.pid} has not ended it within {timeout:g} s (transfer_timeout); "
            "see its log, or give it more time"
        ) from error


def _fill(target: Path, write: Callable[[Path], None]) -> None:
    with temporary_folder(target) as folder:
        write(folder / "whole")
        put_in_place(folder / "whole", target, folder)


def _read(note: Path) -> dict:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note.read_text(encoding="utf-8"))
    return {}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
