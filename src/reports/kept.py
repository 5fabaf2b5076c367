# SPDX-License-Identifier: Apache-2.0
"""What a page needs of a run's last evaluation, in RUN/evaluation.json: counts, and a few small pictures."""

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..data.folders import printable
from ..data.resize import resize
from ..evaluation.pictures import pixels_of

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation, Example

NAME = "evaluation.json"
SHOWN = 12  # pictures of either kind
_SIDE = 128  # pixels of a picture's longer side; larger ones are shrunk
_EXACT = 64  # up to here pictures keep every pixel


def facts_of(
    evaluation: "Evaluation",
    *,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    of: str,
    name_of: Callable[[int], str] = str,
) -> dict[str, Any]:
    """The counts of an evaluation and its worst and best pictures, as plain values for JSON.

    Args:
        evaluation: of this rank its pictures, of all ranks its counts.
        class_names: by class.
        mean: per channel, what the images were normalised with, on the scale 0..255; so is `std`.
        of: which weights were evaluated.
        name_of: the file or number of an image by its index.
    """
    totals = evaluation.totals
    bins = totals.calibration

    def shown(examples: Sequence["Example"]) -> list[dict[str, Any]]:
        return [
            {
                "file": printable(name_of(example.index)),
                "label": example.label,
                "prediction": example.prediction,
                "probability": example.probability,
                "loss": example.loss,
                "picture": _as_url(pixels_of(example.image, mean, std)),
            }
            for example in examples[:SHOWN]
        ]

    return {
        "of": of,
        "class_names": list(class_names),
        "images": totals.images.tolist(),
        "right": totals.right.tolist(),
        "confusion": None if totals.confusion is None else totals.confusion.tolist(),
        "calibration": {
            "images": bins.images.tolist(),
            "right": bins.right.tolist(),
            "probability": bins.probability.tolist(),
        },
        "worst": shown(evaluation.mistakes),
        "best": shown(evaluation.surest),
    }


def _as_url(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data URL: PNG of few pixels, else a small JPEG."""
    height, width = pixels.shape[:2]
    if max(height, width) > _EXACT:
        scale = min(1.0, _SIDE / max(height, width))
        size = [max(1, round(scale * side)) for side in (height, width)]
        pixels, kind, how = resize(pixels, *size, "bilinear"), "jpeg", [cv2.IMWRITE_JPEG_QUALITY, 85]
    else:
        kind, how = "png", []
    _, data = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[..., ::-1]), how)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
