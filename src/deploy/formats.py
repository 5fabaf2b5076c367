"""The formats of an export, by the names that `--file_format` takes.

A format is added by a row here: how it is written, if not by `ms.export` under its name, and how it is opened
again, if it can be, to be compared and run. MindSpore is not imported before one is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError

if TYPE_CHECKING:
    from .predict import Opened


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: as `--file_format` and MindSpore call it.
        suffix: of its files.
        write: (network, its input, the file to write) -> nothing; None: `ms.export` does it.
        device: the one kind of device on which it can be written; None: on each.
        open: a file -> what runs it; None: it cannot be run here, and so not be compared.
    """

    name: str
    suffix: str
    write: Callable[[Any, Any, str], None] | None = None
    device: str | None = None
    open: "Callable[[Path], Opened] | None" = None


def _open_mindir(path: Path) -> "Opened":
    from .mindir import open_mindir

    return open_mindir(path)


FORMATS = {
    format.name: format
    for format in (
        Format("MINDIR", ".mindir", open=_open_mindir),
        Format("AIR", ".air", device="Ascend"),
    )
}


def names_in_words() -> str:
    """`MINDIR, AIR (on Ascend)`."""
    return ", ".join(
        f"{format.name} (on {format.device})" if format.device else format.name for format in FORMATS.values()
    )


def find_format(name: str) -> Format:
    """The format of that name, in upper or lower case.

    Raises:
        UserError: there is none.
    """
    if name.upper() not in FORMATS:
        raise UserError(f"file_format: {name} given, allowed: {names_in_words()}")
    return FORMATS[name.upper()]


def format_of(path: Path) -> Format | None:
    """The format of a file that can be run here; None: it is none of them."""
    return next((f for f in FORMATS.values() if f.open and f.suffix == path.suffix), None)
