# SPDX-License-Identifier: Apache-2.0
"""The folder of an export: the model's files, its card and the report of its comparison."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from ..common.files import checksum, relative_to
from .card import ModelCard
from .formats import format_of, suffixes_in_words

CARD, REPORT, MODEL = "card.json", "parity.json", "model"


@dataclass(frozen=True)
class Exported:
    """An export: its folder, its card, and which of its model files are meant."""

    folder: Path
    card: ModelCard
    files: tuple[Path, ...]


def is_export(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of an export."""
    return (Path(path) / CARD).is_file()


def read_export(path: str | os.PathLike) -> Exported:
    """Reads the card of an export, and compares the files with their checksums in it.

    MindSpore loads a file with changed weights without complaint, and fails in many ways on a damaged one: so
    this comes before a file is opened.

    Args:
        path: the folder of an export, or one of the model files in it, which is then meant alone; or a file
            that holds its card, wherever it lies.

    Raises:
        UserError: it is neither, a file is missing, damaged or changed, or cannot be run here.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"model_path: {path} does not exist{relative_to(path)}; give an export or weights")
    kind = format_of(path) if path.is_file() else None  # to read a pipe would wait
    if not is_export(path) and not kind:
        raise UserError(
            f"model_path: {path} given, allowed: the folder of an export, a {suffixes_in_words()} file in "
            "it, or weights (.ckpt ...)"
        )
    folder = path if path.is_dir() else path.parent
    card = ModelCard.load(folder / CARD) if is_export(folder) else None
    models = {next(iter(parts), ""): parts for parts in card.files.values()} if card else {}
    if path != folder and path.name not in models:
        if kind.read_card:
            return Exported(folder, kind.read_card(path), (path,))
        if not card:
            raise UserError(
                f"{folder / CARD}: no such model card; keep {path.name} in the folder of its export, which "
                "has it, or export to a format whose file holds it: ONNX"
            )
        raise UserError(f"{path}: not of the export in its folder, which has {', '.join(models)}")
    if path != folder:
        models = {path.name: models[path.name]}
    if not models or not all(format_of(folder / name) for name in models):
        raise UserError(f"{folder}: has no model that can be run here; export to MINDIR")
    for name, parts in models.items():
        for part, expected in parts.items():
            _check(folder / name, folder / part, expected)
    return Exported(folder, card, tuple(folder / name for name in models))


def _check(model: Path, part: Path, expected: str) -> None:
    try:
        same = checksum(part) == expected
    except OSError as error:
        raise UserError(f"{part}: part of a model: {error.strerror or error}; export again") from error
    if not same:
        name = model.name if part == model else part.relative_to(model.parent)
        raise UserError(
            f"{model}: damaged or replaced: {name} is not the file that {CARD} describes; export again"
        )
