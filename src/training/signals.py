"""SIGTERM and Ctrl-C as a request that the loop sees after the step in hand."""

import signal
from pathlib import Path
from types import FrameType


class StopRequest:
    """Within the block, the first SIGTERM or SIGINT only sets `came`; a second one ends it all.

    While a graph runs, MindSpore answers a SIGINT by sending the process a SIGTERM, so the two cannot be told
    apart, and are treated alike.

    Attributes:
        came: whether a signal came.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Interrupted(Exception):
    """Training ended by SIGTERM or Ctrl-C after it had saved its state."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self, step: int, steps: int, run_dir: Path):
        super().__init__(
            f"stopped after step {step} of {steps}, state saved; "
            f"continue with: python train.py --resume {run_dir}"
        )
