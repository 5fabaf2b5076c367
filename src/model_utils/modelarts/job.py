# SPDX-License-Identifier: Apache-2.0
"""The processes of one job on one server: who is at work, and whether they belong to one run."""

import fcntl
import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import Self

from ...common.errors import UserError
from ...common.lock import locked


class Job:
    """One job's processes of one user on this server; a context in which this process is one of them.

    Each holds a shared lock of the kernel's on one file, which ends with the process, however that ends.

    Args:
        name: the job's. The first process that comes while no other is at work begins another run if the name
            is "local"; a platform's job, which has a name, stays one run when it is started again.

    Attributes:
        run: names the run; what was fetched once for a run needs not be fetched again for it.
        folder: a folder for notes of the job.

    Raises:
        UserError: the folder for temporary files cannot be written.
    """

    def __init__(self, name: str):
        root = Path(tempfile.gettempdir()) / f"quartet-{os.getuid()}"
        self.run = name
        self.folder = root / (re.sub(r"[^\w.-]", "_", name).strip(".") or "job")

    def __enter__(self) -> Self:
        try:
            with locked(self.folder / "joining", timeout=60):
                self._members = (self.folder / "run").open("a+")
                if not self._others_work():
                    self._members.truncate(0)
                    self._members.write(uuid.uuid4().hex)
                    self._members.flush()
                fcntl.flock(self._members, fcntl.LOCK_SH)
                if self.run == "local":
                    self._members.seek(0)
                    self.run = self._members.read()
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; set TMPDIR to a local folder"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._members.close()

    def leave(self) -> bool:
        """This process counts as at work no longer. Returns whether it was the last one."""
        if self._members.closed:
            return False
        last = not self._others_work()
        self._members.close()
        return last

    def _others_work(self) -> bool:
        try:
            fcntl.flock(self._members, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
