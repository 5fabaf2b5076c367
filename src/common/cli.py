"""What the four doors share: their own flags, the config's keys, and errors as one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from . import heartbeat
from .errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def parser(description: str, *, add_help: bool = True) -> argparse.ArgumentParser:
    """An argument parser for a door's own flags; every other --key belongs to the config."""
    return _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
        allow_abbrev=False,
    )


def checkpoint_parser(description: str) -> argparse.ArgumentParser:
    """`parser` for the doors that start from a checkpoint."""
    made = parser(description)
    made.epilog = "Every other --key value overrides the checkpoint's config; train.py --help lists the keys."
    made.add_argument(
        "--checkpoint_path", required=True, help="a .ckpt of a run, or others' weights with --config_path"
    )
    made.add_argument("--config_path", help="a YAML file whose keys override the config of a .ckpt")
    made.add_argument("--raw_weights", action="store_true", help="the weights, not their average (EMA)")
    return made


def run(main: Callable[[Sequence[str]], int | None], *, cloud: bool = False) -> None:
    """Calls `main` with the command line and ends the process.

    With `cloud`, the keys of ModelArts are obeyed around it, see moxing_adapter.

    0: done. 2: an expected failure, said in one line. 143: stopped by a signal, state saved.
    """
    # MindSpore's warnings (of libraries for other devices, of checkpoints) would bury the run's own lines.
    os.environ.setdefault("GLOG_v", "3")
    heartbeat.start()
    try:
        if cloud:
            from ..model_utils.moxing_adapter import call

            code = call(main, sys.argv[1:]) or 0
        else:
            code = main(sys.argv[1:]) or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        code = 130
    heartbeat.done(code)
    sys.exit(code)
