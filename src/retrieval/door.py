# SPDX-License-Identifier: Apache-2.0
"""What eval.py does with a retrieval set: checks its flags, evaluates, and shows the figures."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..common.errors import UserError
from ..common.table import table
from .embedding import Embedder
from .evaluate import evaluate_retrieval, sheet_rows
from .sets import open_retrieval_set
from .sheets import check_sheet_name, draw_sheet

_OF_TASK = {
    "classification": ("predictions", "pictures"),
    "retrieval": ("protocol", "rotations", "distractors", "sheet"),
}


def check_flags(flags: argparse.Namespace, keys: Sequence[str]) -> None:
    """Refuses what makes no sense together, before anything is opened.

    Args:
        flags: the task, and the flags of each.
        keys: the words that are config keys.
    """
    for task, names in _OF_TASK.items():
        for name in names:
            if task != flags.task and getattr(flags, name) is not None:
                raise UserError(f"--{name}: {getattr(flags, name)} given, allowed: only with --task {task}")
    if flags.task != "retrieval":
        return
    if not any(word.partition("=")[0] == "--data_path" for word in keys):
        raise UserError("--task retrieval: no --data_path given; name the folder of a retrieval set")
    if flags.sheet is not None:
        check_sheet_name(flags.sheet)


def evaluate_from_flags(
    embedder: Embedder, config: Any, flags: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
    """`evaluate_retrieval` for a door.

    Args:
        embedder: of the model.
        config: gives data_path, the folder of the set, and damaged_images.
        flags: see eval.py.

    Returns:
        the table for people, and the figures for JSON. The sheet is drawn, if it is asked for.

    Raises:
        UserError: as `open_retrieval_set` and `evaluate_retrieval`.
    """
    pictures = open_retrieval_set(
        config.data_path,
        protocol=flags.protocol or "auto",
        rotations=flags.rotations,
        distractors=flags.distractors,
    )
    print(*pictures.in_words(), sep="\n")
    if config.damaged_images != "skip":
        pictures.left_out.refuse_unreadable(mend=", or pass over what is unreadable: --damaged_images skip")
    found = evaluate_retrieval(embedder, pictures, skip_damaged=config.damaged_images == "skip")
    if flags.sheet is not None:
        draw_sheet(flags.sheet, sheet_rows(found))
    metrics = found.metrics | embedder.facts
    return table(_rows(metrics)), metrics


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _rows({f"{name.partition('_')[0]} of {kind}": one for kind, one in value.items()})
        else:
            yield name, f"{value:.2f}" if isinstance(value, float) else str(value)
