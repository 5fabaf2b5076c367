"""A process that is killed at a chosen line, as by SIGKILL from outside."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


def killed_at(
    call: Callable[[], object], number: int, *, module: ModuleType, functions: Sequence[str] = ()
) -> bool:
    """Calls in a forked process that kills itself at its line of `module` of this number; was it killed?

    With `functions`, lines of those alone count. The call must not need the threads of this process.
    """
    child = os.fork()
    if child == 0:
        lines = itertools.count(1)

        def trace(frame, event, _):
            code = frame.f_code
            if code.co_filename != module.__file__ or (functions and code.co_name not in functions):
                return None
            if event == "line" and next(lines) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            call()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0
