# SPDX-License-Identifier: Apache-2.0
"""A process that is killed at a chosen line, as by SIGKILL from outside."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

SRC = f"{Path(__file__).parents[2] / 'src'}{os.sep}"


def lines_until(call: Callable[[], object], kill_at: int | None, watched: Callable[[CodeType], bool]):
    """Calls in a forked process that kills itself at its line of this number; the lines it ran, or None.

    Lines of `watched` code alone count. The call must not need the threads of this process.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def trace(frame, event, _):
            nonlocal count
            if event == "call" and not watched(frame.f_code):
                return None
            if event == "line":
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(None)
            os.write(tell, str(count).encode())
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as lines:
        ran = lines.read()
    os.waitpid(child, 0)
    return int(ran) if ran else None


def killed_at(
    call: Callable[[], object], number: int, *, module: ModuleType, functions: Sequence[str] = ()
) -> bool:
    """`lines_until` for the lines of `module`, or of its `functions` alone; was it killed?"""

    def watched(code):
        return code.co_filename == module.__file__ and (not functions or code.co_name in functions)

    return lines_until(call, number, watched) is None


def of_source(*names: str) -> Callable[[CodeType], bool]:
    """Code of files in src/ whose paths begin with one of `names`, but what an import runs."""

    def watched(code):
        path = code.co_filename
        return (
            code.co_name != "<module>"
            and path.startswith(SRC)
            and path.removeprefix(SRC).startswith(names or "")
        )

    return watched
