"""SIGTERM and Ctrl-C as a request that the loop sees after the step in hand."""

import signal
from pathlib import Path
from types import FrameType


class StopRequest:
    """Within the block, the first SIGTERM or SIGINT only sets `signal`; a second one ends it all.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Interrupted(Exception):
    """Training ended by a signal after it had saved its state.

    Attributes:
        exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, number: signal.Signals, step: int, steps: int, run_dir: Path):
        super().__init__(
            f"stopped by {number.name} after step {step} of {steps}, state saved; "
            f"continue with: python train.py --resume {run_dir}"
        )
        self.exit_code = 128 + number
