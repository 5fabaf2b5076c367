"""Which files a model is: one .mindir, or one for each batch size, with card and report beside them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import checksum
from .card import ModelCard, card_path, read_json_object
from .formats import FORMATS, format_of

_OF_A_SIZE = re.compile(r"(.+)_b[1-9]\d*")


@dataclass(frozen=True)
class ModelSet:
    """A model's card, where it lies, and the model's files."""

    card: ModelCard
    card_file: Path
    files: tuple[Path, ...]


def file_of_size(path: Path, size: int) -> Path:
    """The file for one of several batch sizes: `model.mindir` -> `model_b8.mindir`."""
    return path.with_name(f"{path.stem}_b{size}{path.suffix}")


def parity_path(model_path: str | os.PathLike) -> Path:
    """The parity report that belongs to a model file or a card: `model.mindir` -> `model.parity.json`."""
    return Path(model_path).with_suffix(".parity.json")


def find_set(path: str | os.PathLike) -> ModelSet:
    """The files behind a path: a .mindir with its card beside it, or the card (.json) of several.

    One of several files, `model_b8.mindir`, is taken alone, with the card of all, `model.json`.

    Raises:
        UserError: the path is of another kind, the card is missing or damaged, or it names other files.
    """
    path = Path(path)
    if path.suffix == ".json":
        card = ModelCard.load(path)
        if other := [name for name in card.files.values() if not format_of(Path(name))]:
            raise UserError(
                f"{path}: describes {', '.join(other)}, which cannot be run here; export to MINDIR"
            )
        alone = [path.with_suffix(f.suffix) for f in FORMATS.values() if f.open]
        alone = next((file for file in alone if file.is_file()), alone[0])
        return ModelSet(card, path, tuple(path.with_name(name) for name in card.files.values()) or (alone,))
    if not format_of(path):
        raise UserError(f"{path}: not a .mindir file; export a checkpoint to MINDIR first")
    if not path.is_file():
        of_all = path.with_suffix(".json")
        hint = f"give {of_all}, the card of several files" if of_all.exists() else "give the exported file"
        raise UserError(f"{path}: no such model file; {hint}")
    card_file = _card_of(path)
    card = ModelCard.load(card_file)
    if card.files and path.name not in card.files.values():
        raise UserError(
            f"{path}: not of the export that {card_file} describes, which has "
            f"{', '.join(card.files.values())}; give {card_file}, or export again"
        )
    return ModelSet(card, card_file, (path,))


def digest(files: list[Path]) -> str:
    """SHA-256, in hexadecimal, of the contents of `files` one after the other.

    Raises:
        UserError: one of them is missing or cannot be read.
    """
    try:
        return checksum(*files)
    except OSError as error:
        raise UserError(
            f"{error.filename}: part of a model: {error.strerror or error}; export again"
        ) from error


def check_digest(path: Path, parts: list[Path] | None = None) -> None:
    """Compares a model file with the parity report of its export, where there is one.

    Args:
        path: the file.
        parts: the file and those that hold its weights; None for those that the report names.

    Raises:
        UserError: the file was changed since its export, or a part is missing.
    """
    report_file = parity_path(_card_of(path))
    if not report_file.exists():
        return
    report = read_json_object(report_file, what="parity report")
    of_sizes = [entry for entry in _listed(report, "files") if isinstance(entry, dict)]
    entry = next((e for e in of_sizes if Path(str(e.get("file"))).name == path.name), report)
    parts = parts or [path, *(path.parent / name for name in _listed(entry, "weights"))]
    if entry.get("sha256") != digest(parts):
        raise UserError(
            f"{path}: damaged or replaced: not the file that {report_file.name} describes; export again"
        )


def _listed(report: dict[str, Any], key: str) -> list:
    return report[key] if isinstance(report.get(key), list) else []


def _card_of(path: Path) -> Path:
    own = card_path(path)
    match = _OF_A_SIZE.fullmatch(path.stem)
    if match and not own.exists():
        shared = path.with_name(match[1] + ".json")
        return shared if shared.exists() else own
    return own
