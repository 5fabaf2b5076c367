# SPDX-License-Identifier: Apache-2.0
"""The model card: what a program must know, besides the weights, to feed an exported model."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..common.errors import UserError
from ..common.files import to_json, write_text
from ..data.preparation import Preparation

INPUT_RULES = {
    "float32": "NCHW float32, RGB, (value - mean) / std per channel on the 0..255 scale",
    "uint8": "NHWC uint8, RGB, 0..255; the model itself computes (value - mean) / std per channel",
}
RESIZE_RULE = (
    "crop centre: the short side to image_size / crop_percentage; squash: both sides to it, whatever the "
    "shape; then the central square of image_size is cut out; "
    "interpolation bilinear and bicubic: as Pillow, antialiased when shrinking; tf_bilinear: as TensorFlow, "
    "which is not"
)
_SEAL = "sha256"  # the first line of a card: the checksum of all others

Text = Annotated[str, StringConstraints(min_length=1)]
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$")]


class ModelCard(BaseModel):
    """How to prepare images for a model and how to read its answer.

    The model takes NCHW float32 images of shape (N, 3, S, S), RGB, normalised as `(value - mean) / std` with
    values in 0..255; with `input_type` uint8, the pixels themselves, NHWC. Column k of the logits belongs to
    `class_names[k]`.

    Attributes:
        model: name of the network.
        class_names: one name a class, in the order of the logits.
        preparation: from a picture of any size to the input; gives S.
        input_type: one of INPUT_RULES.
        files: of an export. For each batch size (`formats.ANY_BATCH`: any) its files by their names in the
            folder of the card, each with its SHA-256: the model first, then what holds its weights, if they
            stand apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: Text
    class_names: tuple[Text, ...] = Field(min_length=1)
    preparation: Preparation
    input_type: Literal["float32", "uint8"] = "float32"
    files: dict[Annotated[int, Field(ge=0)], dict[FileName, str]] = Field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the model takes it: (3, S, S), or (S, S, 3) for uint8."""
        side = self.preparation.image_size
        return (3, side, side) if self.input_type == "float32" else (side, side, 3)

    @property
    def image_dtype(self) -> np.dtype:
        """The type of its values."""
        return np.dtype(self.input_type)

    def to_text(self) -> str:
        """The card as JSON, sealed by a checksum, with the rules in words for who has not this code."""
        words = {"input": INPUT_RULES[self.input_type], "resize": RESIZE_RULE}
        return _sealed({**self.model_dump(mode="json"), **words})

    def save(self, path: str | os.PathLike) -> None:
        """Writes `to_text`.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, self.to_text())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a card that `save` wrote.

        Raises:
            UserError: the card is missing, or as `from_text`.
        """
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: cannot read this model card: {error.strerror or error}; export the model again"
            ) from error
        return cls.from_text(text, path)

    @classmethod
    def from_text(cls, text: str | bytes, path: str | os.PathLike) -> Self:
        """The card of `to_text`. One without its checksum was changed on purpose: a warning says so.

        Args:
            text: the card, in UTF-8.
            path: the file that it is from, for messages.

        Raises:
            UserError: the card is damaged, changed, or a value is wrong; the message names the file.
        """
        try:
            text = text.decode() if isinstance(text, bytes) else text
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: damaged model card (not JSON); export the model again") from error
        if _SEAL not in values:
            logging.getLogger("quartet").warning(
                "%s: changed by hand; its values are taken as they are", path
            )
        elif text != _sealed(values):
            raise UserError(
                f"{path}: damaged, or changed since the export; export the model again, or, if you changed "
                f'it on purpose, remove the line "{_SEAL}" from it'
            )
        facts = {key: value for key, value in values.items() if key not in (_SEAL, "input", "resize")}
        try:
            return cls.model_validate_json(json.dumps(facts))
        except ValidationError as error:
            found = error.errors()[0]
            key = ".".join(map(str, found["loc"]))
            raise UserError(f"{path}: model card: {key}: {found['msg']}; export the model again") from error


def _sealed(values: dict[str, Any]) -> str:
    """The text of a card, whose first line is the checksum of the others."""
    facts = {key: value for key, value in values.items() if key != _SEAL}
    total = hashlib.sha256(to_json(facts).encode()).hexdigest()
    return to_json({_SEAL: total, **facts}, indent=2) + "\n"
