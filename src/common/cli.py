# SPDX-License-Identifier: Apache-2.0
"""What doors and tools share: flags of their own beside the config's keys, one-line errors, exit codes."""

import argparse
import difflib
import errno
import functools
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from . import heartbeat
from .errors import UserError

Main = Callable[[Sequence[str]], int | None]
_MENDS = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENAMETOOLONG: "give a shorter one",
}
_PACKAGE = __package__.partition(".")[0]


def as_called_here(text: str) -> str:
    """A text with its commands as they are called here: of `src` in a clone, of `quartet` if installed."""
    return text.replace("python -m src.", f"python -m {_PACKAGE}.")


class _Parser(argparse.ArgumentParser):
    _words: Sequence[str] = ()
    keys: Callable[[Sequence[str]], str] | None = None

    def print_help(self, file=None):
        super().print_help(file)
        if self.keys is not None:
            print(f"\n{self.keys(self._words)}", file=file)

    def format_help(self) -> str:
        return as_called_here(super().format_help())

    def parse_known_args(self, args=None, namespace=None):
        self._words = list(sys.argv[1:] if args is None else args)
        own, keys = self._apart()
        known, rest = super().parse_known_args(own, namespace)
        return known, [*keys, *rest]

    def _apart(self) -> tuple[list[str], list[str]]:
        """The words, and the `--key value` of others. argparse would take the value of one for a word.

        Only of a parser with a list of words, such as images, since a key can stand there without a value.
        """
        own, keys = list(self._words), []
        if not any(not action.option_strings and action.nargs == "+" for action in self._actions):
            return own, keys
        flags, place = {f"--{name}" for name in flag_names(self)}, 0
        while place < len(own) and own[place] != "--":
            flag, given, _ = own[place].partition("=")
            if flag.startswith("--") and flag not in flags:
                end = place + 1 if given else place + 2
                keys += own[place:end]
                del own[place:end]
            else:
                place += 1
        return own, keys

    def _get_value(self, action, arg_string):
        """~ is the home folder also in `--flag=~/x`, which a shell leaves; another program's words stay."""
        if arg_string.startswith("~") and action.nargs != argparse.REMAINDER:
            arg_string = os.path.expanduser(arg_string)
        return super()._get_value(action, arg_string)

    def error(self, message: str):
        raise UserError(f"{message}{self._misspelt()}; see --help")

    def _misspelt(self) -> str:
        """The first word that is nearly one of the flags."""
        known = [f"--{name}" for name in flag_names(self)]
        for word in self._words:
            flag = word.partition("=")[0]
            near = difflib.get_close_matches(flag, known, n=1, cutoff=0.8)
            if flag.startswith("--") and near and flag not in known:
                return f" ({flag} given, {near[0]} is the nearest)"
        return ""


def parser(
    description: str, *, keys: Callable[[Sequence[str]], str] | None = None, add_help: bool = True
) -> argparse.ArgumentParser:
    """An argument parser for a door's own flags; every other --key belongs to the config.

    Args:
        description: what --help shows first.
        keys: from the command line to what --help shows last, the config's keys.
        add_help: whether there is a --help.
    """
    made = _Parser(
        prog=_program(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
        allow_abbrev=False,
    )
    made.keys = keys
    return made


def _program() -> str | None:
    """How a module is started, as argparse says it from Python 3.14 on; None: the name of the file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None


def flag_names(flags: argparse.ArgumentParser) -> list[str]:
    """The names of a door's own flags, without the --."""
    return [text[2:] for action in flags._actions for text in action.option_strings if text.startswith("--")]


def checkpoint_parser(
    description: str, *, keys: Callable[[Sequence[str]], str] | None = None, also: str = ""
) -> argparse.ArgumentParser:
    """`parser` for the doors that start from a checkpoint. `also`: what else its path may be."""
    made = parser(description, keys=keys)
    made.add_argument(
        "--checkpoint_path",
        required=True,
        help=f"a run's folder (its best), a .ckpt, or published weights (.npz, .safetensors, .pth){also}",
    )
    add_weights_flags(made)
    return made


def add_weights_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of how weights are read, beside their path."""
    flags.epilog = "Every other --key value overrides the checkpoint's config."
    flags.add_argument(
        "--config_path",
        help="a YAML file: its keys replace those of a .ckpt; published weights need it, as their recipe",
    )
    flags.add_argument(
        "--class_names", metavar="FILE",
        help="of published weights: one name a line, or JSON as imagenet_class_index.json (default: numbers)",
    )  # fmt: skip
    flags.add_argument(
        "--raw_weights",
        action="store_true",
        help="use the weights themselves, not their moving average (EMA)",
    )


def run(main: Main, *, around: Callable[[Main, Sequence[str]], int | None] | None = None) -> None:
    """Calls `main` with the command line and ends the process.

    0: done. 2: an expected failure, said in one line. 143: stopped by a signal, state saved. 141: nobody
    reads the output any more, as after `--help | head`.

    Args:
        main: gets the words after the program's name and returns the exit code; None is 0.
        around: called with `main` and the words in place of `main`, as for a run on ModelArts.
    """
    # MindSpore's warnings (of libraries for other devices, of checkpoints) would bury the run's own lines.
    os.environ.setdefault("GLOG_v", "3")
    heartbeat.start()
    with _quiet_without_a_reader():
        code = _exit_code(main if around is None else functools.partial(around, main))
    heartbeat.done(code)
    sys.exit(code)


def _exit_code(main: Main) -> int:
    try:
        return main(sys.argv[1:]) or 0
    except UserError as error:
        message, code = f"error: {as_called_here(' '.join(str(error).split()))}", 2
    except KeyboardInterrupt:
        message, code = "stopped by Ctrl-C", 130
    except OSError as error:
        mend = _MENDS.get(error.errno)
        if error.filename is None or mend is None:
            raise
        message, code = f"error: {error.filename}: {error.strerror}; {mend}", 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", _PACKAGE):
            raise
        message, code = (
            f"error: {sys.executable} has no package {package}; use the Python that the requirements are "
            "installed for, as .venv/bin/python, or pip install -r requirements.txt; "
            + as_called_here("python -m src.tools.doctor says what else is missing"),
            2,
        )
    print(message, file=sys.stderr)
    return code


@contextmanager
def _quiet_without_a_reader() -> Iterator[None]:
    """Within it, output to a pipe whose reader has ended (`| head`) ends the process with 141, as SIGPIPE."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not (_has_no_reader(1) or _has_no_reader(2)):
            raise  # of another connection
        # Python writes what is left in its buffers once more at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.exit(128 + signal.SIGPIPE)


def _has_no_reader(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
