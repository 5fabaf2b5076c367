# SPDX-License-Identifier: Apache-2.0
"""Asking the tools of a driver."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

TIMEOUT = 30  # seconds; npu-smi takes some for eight cards


@dataclass(frozen=True)
class Answer:
    """What a command answered.

    Attributes:
        error: one line of what went wrong; empty where it went well.
    """

    output: str
    error: str = ""


def ask(command: Sequence[str], *, also_in: Sequence[str] = ()) -> Answer | None:
    """Runs a command; None: there is no such command, on the PATH or in the folders `also_in`."""
    found = next(filter(None, (shutil.which(command[0], path=path) for path in (None, *also_in))), None)
    if found is None:
        return None
    try:
        ended = subprocess.run(
            [found, *command[1:]],
            capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer("", f"{command[0]} gives no answer in {TIMEOUT} s")
    except OSError as error:
        return Answer("", f"{command[0]} cannot be started ({error.strerror})")
    if ended.returncode:
        lines = [line.strip() for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
        return Answer(ended.stdout, f"{' '.join(command)}: {(lines or ['it failed'])[-1]}"[:200])
    return Answer(ended.stdout)
