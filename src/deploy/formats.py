# SPDX-License-Identifier: Apache-2.0
"""The formats of an export, by the names that `--file_format` takes.

A format is added by a row here: how it is written, if not by `ms.export` under its name, and how it is opened
again, if it can be, to be compared and run. Neither MindSpore nor a runtime is imported before one is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import UserError

if TYPE_CHECKING:
    from mindspore import nn

    from .card import ModelCard
    from .predict import Opened

ANY_BATCH = 0  # in the place of a batch size: any


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: as `--file_format` and MindSpore call it.
        suffix: of its files.
        write: (network in evaluation mode, card, the file to write, and by name `options`) -> the files that
            it wrote, that one first; None: `ms.export` does it, for one batch size.
        device: the one kind of device on which it can be written; None: on each.
        open: a file -> what runs it; None: it cannot be run here, and so not be compared.
        backends: what runs it, by the names that `--backend` takes, the one for comparisons first.
        any_batch: one file takes batches of any size.
        read_card: the card that stands in a file, after the file was compared with its checksum in it; None:
            it holds none, and needs the folder of its export.
        float16: whether networks of that precision can be written.
        int8: whether `onnx.calibration.quantise_file` can make its file one of 8 bits.
        options: flags of export.py that are for this format alone.
    """

    name: str
    suffix: str
    write: "Callable[..., list[Path]] | None" = None
    device: str | None = None
    open: "Callable[..., Opened] | None" = None
    backends: tuple[str, ...] = ("mindspore",)
    any_batch: bool = False
    read_card: "Callable[[Path], ModelCard] | None" = None
    float16: bool = True
    int8: bool = False
    options: tuple[str, ...] = ()

    def batch_sizes(self, asked: Sequence[int] | None) -> list[int]:
        """Those of the files, in order: ANY_BATCH, or those asked for, or 1.

        Raises:
            UserError: one is below 1, or the format takes any.
        """
        if self.any_batch:
            if asked is not None:
                raise UserError(
                    f"export_batch_size: a file of {self.name} takes any batch size; leave it out"
                )
            return [ANY_BATCH]
        sizes = sorted({*([1] if asked is None else asked)})
        if not sizes or sizes[0] < 1:
            raise UserError(f"export_batch_size: {sizes[0] if sizes else 0} is not a batch; give 1 or more")
        return sizes


def _open_mindir(path: Path) -> "Opened":
    from .mindir import open_mindir

    return open_mindir(path)


def _write_onnx(network: "nn.Cell", card: "ModelCard", path: Path) -> list[Path]:
    from .onnx.metadata import write_onnx
    from .onnx.translate import to_onnx

    return write_onnx(to_onnx(network, card), card, path)


def _open_onnx(path: Path, *, threads: int = 0) -> "Opened":
    from .onnx.session import open_onnx

    return open_onnx(path, threads=threads)


def _read_onnx_card(path: Path) -> "ModelCard":
    from .onnx.metadata import read_card

    return read_card(path)


def _write_packed(network: "nn.Cell", card: "ModelCard", path: Path, **options: str) -> list[Path]:
    from .packed.backend import write_network

    return write_network(network, card, path, **options)


def _open_packed(path: Path, *, threads: int = 0) -> "Opened":
    from .packed.backend import open_packed

    return open_packed(path, threads=threads)


def _read_packed_card(path: Path) -> "ModelCard":
    from .packed.backend import read_card

    return read_card(path)


FORMATS = {
    format.name: format
    for format in (
        Format("MINDIR", ".mindir", open=_open_mindir, backends=("mindspore", "lite")),
        Format(
            "ONNX",
            ".onnx",
            write=_write_onnx,
            open=_open_onnx,
            backends=("onnxruntime",),
            any_batch=True,
            read_card=_read_onnx_card,
            int8=True,
        ),
        Format(
            "PACKED",
            ".packed",
            write=_write_packed,
            open=_open_packed,
            backends=("packed",),
            any_batch=True,
            read_card=_read_packed_card,
            float16=False,
            options=("real_weights",),
        ),
        Format("AIR", ".air", device="Ascend"),
    )
}


def names_in_words() -> str:
    """`MINDIR, ONNX, PACKED, AIR (on Ascend)`."""
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


def suffixes_in_words() -> str:
    """`.mindir, .onnx or .packed`: of the files that can be run here."""
    *others, last = (f.suffix for f in FORMATS.values() if f.open)
    return f"{', '.join(others)} or {last}"
