# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to its int8 file, by the pictures of a folder: some calibrate, others are compared."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...common.errors import UserError
from ...data.decode import UnreadableImage
from ...data.folders import Found
from ...data.read_ahead import pictures_ahead
from ..classify import Classified, classify
from ..examples import AUTO, Example, find_examples
from ..exported import Exported
from ..predict import Predictor

CALIBRATION_IMAGES = 512
COMPARED_IMAGES = 2000
LEAST = 50
"""Pictures that calibrate and that are compared, at least: one of 50 is what AGREEMENT lets differ."""
AGREEMENT = 0.98
"""Of the largest classes. Each of some fifteen 8-bit tensors in a row adds a noise of 0.2 to 0.7 % to the
logits, together 1.5 to 2.5 %. That turns the class of pictures that the network itself is unsure of: 0.5 % of
them for a network that is right in 78 %, under 2 % for one that is right in 47 %, as often to the right class
as to a wrong one. Where more differ, ranges or weights do not fit into 8 bits."""


@dataclass(frozen=True)
class Calibration:
    """Pictures of a folder, in an order that mixes its classes.

    Attributes:
        folder: where they are.
        calibrating: the ranges of activations are measured on them.
        compared: others, on which both files are compared.
        found: what the folder holds.
    """

    folder: str
    calibrating: Sequence[Example]
    compared: Sequence[Example]
    found: Found

    @classmethod
    def find(
        cls, folder: str | os.PathLike, class_names: Sequence[str], *, images: int = CALIBRATION_IMAGES
    ) -> Self:
        """Half of a folder's pictures at most calibrate; up to COMPARED_IMAGES of the others are compared.

        Args:
            folder: as infer.py takes it. Its class folders are labels, if all are classes of the model.
            class_names: of the model.
            images: that calibrate.

        Raises:
            UserError: there are not enough pictures, or a folder in it cannot be read.
        """
        if images < LEAST:
            raise UserError(f"calibration_images: {images} given, allowed: a whole number >= {LEAST}")
        examples, found = find_examples([folder], class_names, labels=AUTO)
        found.left_out.refuse_unreadable()
        if len(examples) < 2 * LEAST:
            raise UserError(
                f"calibration: {folder} has {len(examples)} of the {2 * LEAST} needed pictures: half "
                "calibrate, and the others are compared; give a folder with more"
            )
        order = np.random.default_rng(0).permutation(len(examples))
        mixed = [examples[place] for place in order]
        used = min(images, len(mixed) // 2)
        return cls(os.fspath(folder), mixed[:used], mixed[used : used + COMPARED_IMAGES], found)


def quantise_file(parts: Sequence[Path], float32: Predictor, calibration: Calibration) -> dict[str, Any]:
    """Puts the int8 model in the place of a float32 one, as a single file, and compares the two.

    Args:
        parts: an ONNX file, and that of its constants if they stand apart.
        float32: the same model, opened.

    Returns:
        {"type": "int8", "calibration": {"folder", "images", "skipped"}, "compared": {"images", "agree",
        "agreement", "limit", "skipped"}, "accuracy", "images_per_second", "bytes", "passed"}. The last three
        but one have {"float32", "int8"}; the accuracy, top-1 in percent, is None without labels. `skipped`
        are those that cannot be read, {"file", "reason"}.

    Raises:
        UserError: too few different pictures can be read.
    """
    import onnx

    from .metadata import write_onnx
    from .quantise import BATCH, quantise
    from .session import open_onnx

    path, card = parts[0], float32.card
    squares, skipped = _read(calibration, float32)
    prepare = card.preparation.normalise if card.input_type == "float32" else np.asarray
    groups = np.array_split(np.arange(len(squares)), -(-len(squares) // BATCH))
    batches = (np.stack([prepare(squares[place]) for place in group]) for group in groups)
    size, made = sum(part.stat().st_size for part in parts), path.with_suffix(".int8")
    write_onnx(quantise(onnx.load(path), batches), card, made)
    how = {"backend": float32.backend, "device": float32.device}
    int8 = Predictor.from_files(Exported(path.parent, card, (made,)), [open_onnx(made)], **how)
    both = {"float32": classify(float32, calibration.compared, top=1)}
    both["int8"] = classify(int8, calibration.compared, top=1)
    for part in parts:
        part.unlink()
    made.rename(path)
    compared = _compared(calibration, **both)
    return {
        "type": "int8",
        "calibration": {"folder": calibration.folder, "images": len(squares), "skipped": skipped},
        "compared": compared,
        "accuracy": _of(both, lambda one: one.accuracy["top1"]) if both["int8"].accuracy else None,
        "images_per_second": _of(both, lambda one: one.performance["model"]["images_per_second"]),
        "bytes": {"float32": size, "int8": path.stat().st_size},
        "passed": compared["agreement"] >= AGREEMENT,
    }


def _of(both: dict[str, Classified], what) -> dict[str, Any]:
    return {name: what(one) for name, one in both.items()}


def _read(calibration: Calibration, model: Predictor) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    """The squares of the pictures that calibrate, (S, S, 3) uint8, and which cannot be read."""
    skipped: list[dict[str, str]] = []

    def skip(example: Example, error: UnreadableImage) -> None:
        skipped.append({"file": example.file, "reason": error.reason})

    plan = model.card.preparation.plan_square
    batches = pictures_ahead(
        calibration.calibrating, lambda example: example.read(plan), batch_size=32, skip=skip
    )
    squares = [square for _, some in batches for square in some]
    different = len({square.tobytes() for square in squares})
    _refuse_few(calibration, different, "different pictures that can be read, to calibrate", skipped)
    return squares, skipped


def _compared(calibration: Calibration, float32: Classified, int8: Classified) -> dict[str, Any]:
    classes = [[one["predictions"][0]["class"] for one in found.results] for found in (float32, int8)]
    images = len(classes[0])
    _refuse_few(calibration, images, "pictures that can be read, to be compared", float32.skipped)
    agree = sum(map(str.__eq__, *classes))
    return {
        "images": images,
        "agree": agree,
        "agreement": agree / images,
        "limit": AGREEMENT,
        "skipped": float32.skipped,
    }


def _refuse_few(calibration: Calibration, count: int, what: str, skipped: list[dict[str, str]]) -> None:
    if count < LEAST:
        damaged = f" ({len(skipped)} cannot, as {skipped[0]['file']})" if skipped else ""
        raise UserError(
            f"calibration: {calibration.folder} has {count} {what}{damaged}, and {LEAST} are needed; "
            "give a folder with more"
        )
