"""What the four doors share: their own flags, the config's keys, and errors as one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from src.model_utils.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser for a door's own flags; every other --key belongs to the config."""
    made = _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    made.add_argument("-h", "--help", action="store_true", help="show this, and every key of the model")
    return made


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Calls `main` with the command line and ends the process.

    0: done. 2: an expected failure, said in one line. 128 + n: ended by signal n, state saved.
    """
    # MindSpore's warnings (of libraries for other devices, of checkpoints) would bury the run's own lines.
    os.environ.setdefault("GLOG_v", "3")
    try:
        code = main(sys.argv[1:]) or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        code = 130
    sys.exit(code)
