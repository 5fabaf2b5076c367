# SPDX-License-Identifier: Apache-2.0
"""The project's log: dated lines in a run's file, plain ones on standard error."""

import contextlib
import logging
import os
import sys
from pathlib import Path

from tqdm import tqdm

from .files import writing


def setup_logging(log_file: str | os.PathLike | None, *, rank: int = 0) -> logging.Logger:
    """Sets up and returns the logger "quartet": dated lines in `log_file`, plain ones on standard error.

    Only rank 0 writes to standard error, around a progress bar if there is one. A second call replaces what
    the first set up.

    Args:
        log_file: lines are appended to it; None for no file.
        rank: of this process.

    Raises:
        UserError: the file cannot be opened; later, from a logging call, it cannot be written.
    """
    logger = logging.getLogger("quartet")
    for handler in logger.handlers[:]:
        if isinstance(handler, _Screen | _LogFile | logging.NullHandler):
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler that a notebook or a library gave the root would double the lines
    # Without any handler, logging itself would write warnings to standard error.
    logger.addHandler(_Screen() if rank == 0 else logging.NullHandler())
    if log_file is not None:
        with writing(Path(log_file)):
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            handler = _LogFile(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger


class _Screen(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            # The stream is looked up now, since it may be replaced after the set-up.
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)  # logging's own way: a closed terminal does not stop a training


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        with writing(Path(self.baseFilename)):
            raise error
