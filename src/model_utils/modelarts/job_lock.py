"""The processes of one job on one server: who is alive, and one of them at a time for what is done once.

A lock is the kernel's, on a file of the job's folder under the temporary folder: it ends with its process,
however that ends, so that nobody waits for the dead. The file names its holder for the messages.
"""

import fcntl
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...common.errors import UserError

POLL_SECONDS = 0.2


def started(pid: int) -> str | None:
    """When the process began, in clock ticks since boot; None if it is gone. A pid may be used again."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


class Job:
    """One job's processes on this server; a context in which this process is one of them.

    Args:
        name: the job's; processes of the same user and name belong together.
        say: receives the lines for the user.
        again: a process of that name that comes when all others have ended belongs to the same run still,
            as when a platform starts a job anew; False: it begins another run.

    Attributes:
        run: names the run; what was done once for a run needs not be done again for it.
    """

    def __init__(self, name: str, *, say: Callable[[str], None], again: bool = True):
        self.run = self.name = name
        self._say, self._again = say, again
        root = Path(tempfile.gettempdir()) / f"quartet-{os.getuid()}"
        self.folder = root / (re.sub(r"[^\w.-]", "_", name).strip(".") or "job")
        self._me = self.folder / "members" / f"{os.getpid()}-{started(os.getpid())}"

    def __enter__(self) -> "Job":
        try:
            self._me.parent.mkdir(parents=True, exist_ok=True)
            with self.hold("joining", timeout=60, quiet=True):
                run = self.folder / "run"
                if not self.others_alive():
                    run.write_text(f"{self.name}-{uuid.uuid4().hex}")
                if not self._again:
                    self.run = run.read_text()
                self._me.touch()
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; set TMPDIR to a local folder"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """This process counts no longer as alive."""
        self._me.unlink(missing_ok=True)

    def others_alive(self) -> bool:
        """Whether another process of the job is at work on this server."""
        alive = False
        for member in self._me.parent.iterdir():
            pid, _, since = member.name.partition("-")
            if started(int(pid)) != since:
                member.unlink(missing_ok=True)
            elif member != self._me:
                alive = True
        return alive

    @contextmanager
    def hold(self, purpose: str, *, timeout: float, quiet: bool = False) -> Iterator[None]:
        """Within it, no other process of the job holds the same purpose.

        Args:
            timeout: the longest wait, seconds.
            quiet: say nothing of a wait or of a holder that died.

        Raises:
            UserError: another process held it for longer than `timeout` seconds.
        """
        path = self.folder / f"{purpose}.lock"
        with path.open("a+") as file:
            self._wait(file.fileno(), path, purpose, timeout, quiet)
            before = _read(path)
            if before and not quiet:
                self._say(f"{purpose}: process {before['pid']} died in the middle; this one takes over")
            file.truncate(0)
            json.dump({"pid": os.getpid(), "started": started(os.getpid())}, file)
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _wait(self, handle: int, path: Path, purpose: str, timeout: float, quiet: bool) -> None:
        deadline = time.monotonic() + timeout
        said = quiet
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            holder = (_read(path) or {}).get("pid", "of this job")
            if time.monotonic() > deadline:
                raise UserError(
                    f"{purpose}: process {holder} has not ended it within {timeout:g} s (transfer_timeout); "
                    "see its log, or give it more time"
                )
            if not said:
                self._say(f"{purpose}: waiting for process {holder}")
                said = True
            time.sleep(POLL_SECONDS)

    def once(
        self, purpose: str, work: Callable[[], None], *, is_done: Callable[[], bool], timeout: float
    ) -> None:
        """Does `work` unless `is_done`, in one process at a time.

        Where the process that was waited for failed, this one fails as well. Where it died, or had failed
        before this one came, this one does the work.

        Raises:
            UserError: the other process failed, or did not end within `timeout` seconds.
        """
        record = self.folder / f"{purpose}.failed"
        earlier = _read(record)
        with self.hold(purpose, timeout=timeout):
            if is_done():
                return
            failure = _read(record)
            if failure and failure != earlier:
                raise UserError(f"{purpose}: process {failure['pid']} failed: {failure['reason']}")
            try:
                work()
            except BaseException as error:
                expected = isinstance(error, Exception)
                reason = " ".join(str(error).split()) if expected else "it was stopped"
                failure = {"id": uuid.uuid4().hex, "pid": os.getpid(), "reason": reason}
                record.write_text(json.dumps(failure))
                raise


def _read(path: Path) -> dict | None:
    """The JSON object in a file; None where there is none, or one that is only half written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
