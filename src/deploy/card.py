"""The model card: what a program must know, besides the weights, to feed an exported model."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from ..common.errors import UserError
from ..common.files import write_json
from ..data.preparation import Preparation
from ..data.resize import EvalCrop, Interpolation

KEYS = ("model", "class_names", "image_size", "mean", "std", "crop", "interpolation")
OPTIONAL_KEYS = ("crop_percentage", "input_type")  # cards of earlier exports lack them
CROPS = get_args(EvalCrop)
INTERPOLATIONS = get_args(Interpolation)
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


def card_path(model_path: str | os.PathLike) -> Path:
    """The card that belongs to a model file: `model.mindir` -> `model.json`."""
    return Path(model_path).with_suffix(".json")


@dataclass(frozen=True)
class ModelCard:
    """How to prepare images for a model and how to read its answer.

    The model takes NCHW float32 images of shape (N, 3, image_size, image_size), RGB, normalised as
    `(value - mean) / std` with values in 0..255; with `input_type` uint8, the pixels themselves, NHWC. An
    image of another size is resized first, as `crop` and `interpolation` say
    (`Preparation`). Column k of the logits belongs to `class_names[k]`.

    Attributes:
        model: name of the network.
        class_names: one name a class, in the order of the logits.
        image_size: side of the square input, in pixels.
        mean: per RGB channel, on the 0..255 scale.
        std: per RGB channel, on the 0..255 scale, above zero.
        crop: one of CROPS: the short side becomes `image_size / crop_percentage`, or both sides do; then the
            central square is cut out.
        interpolation: one of INTERPOLATIONS: see `data.resize.Resizing`.
        crop_percentage: share of the resized side that the model sees, in (0, 1].
        input_type: one of INPUT_RULES.
        files: of a model that was exported for several batch sizes, the file of each, beside the card; empty
            for a single file, which has the card's name.

    Raises:
        UserError: a value is of the wrong type or out of range; the message names the key.
    """

    model: str
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "centre"
    interpolation: str = "bilinear"
    crop_percentage: float = 1.0
    input_type: str = "float32"
    files: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.model, str) and self.model):
            raise UserError("model card: 'model' must be the name of a model")
        names = self.class_names
        if not (isinstance(names, list | tuple) and names and all(isinstance(n, str) and n for n in names)):
            raise UserError("model card: 'class_names' must be a list of names, one a class")
        if isinstance(self.image_size, bool) or not isinstance(self.image_size, int) or self.image_size < 1:
            raise UserError("model card: 'image_size' must be a whole number of pixels, 1 or more")
        object.__setattr__(self, "class_names", tuple(names))
        object.__setattr__(self, "mean", _three_numbers("mean", self.mean))
        object.__setattr__(self, "std", _three_numbers("std", self.std))
        if min(self.std) <= 0:
            raise UserError("model card: 'std' must be above zero in every channel")
        if self.crop not in CROPS:
            raise UserError(f"model card: 'crop' must be one of {', '.join(CROPS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(f"model card: 'interpolation' must be one of {', '.join(INTERPOLATIONS)}")
        share = self.crop_percentage
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share <= 1:
            raise UserError("model card: 'crop_percentage' must be a number above 0, 1 at most")
        if self.input_type not in INPUT_RULES:
            raise UserError(f"model card: 'input_type' must be one of {', '.join(INPUT_RULES)}")
        object.__setattr__(self, "files", _file_of_each_size(self.files))

    @classmethod
    def of(cls, preparation: Preparation, **facts: Any) -> Self:
        """The card of a model whose pictures are prepared so; `facts` are the other attributes."""
        return cls(**asdict(preparation), **facts)

    @property
    def preparation(self) -> Preparation:
        """How a picture becomes what the model takes."""
        return Preparation(**{field.name: getattr(self, field.name) for field in fields(Preparation)})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the model takes it: (3, S, S), or (S, S, 3) for uint8."""
        side = self.image_size
        return (3, side, side) if self.input_type == "float32" else (side, side, 3)

    @property
    def image_dtype(self) -> np.dtype:
        """The type of its values."""
        return np.dtype(self.input_type)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the card as JSON, with the rules of preparation in words for who reads it without this code.

        Raises:
            UserError: the file cannot be written.
        """
        values = {key: getattr(self, key) for key in (*KEYS, *OPTIONAL_KEYS)}
        if self.files:
            values["files"] = {str(size): name for size, name in self.files.items()}
        write_json(path, {**values, "input": INPUT_RULES[self.input_type], "resize": RESIZE_RULE})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a card that `save` wrote. Keys that the card does not know are passed over.

        Raises:
            UserError: the card is missing, damaged or lacks a key; the message names the file and the key.
        """
        values = read_json_object(path, what="model card")
        missing = [key for key in KEYS if key not in values]
        if missing:
            raise UserError(
                f"{path}: model card without {', '.join(map(repr, missing))}; export the model again"
            )
        try:
            return cls(**{key: values[key] for key in (*KEYS, *OPTIONAL_KEYS, "files") if key in values})
        except UserError as error:
            raise UserError(f"{path}: {error}; export the model again") from error


def read_json_object(path: str | os.PathLike, *, what: str) -> dict[str, Any]:
    """Reads a JSON file that holds one object; `what` says in messages which kind of file it is.

    Raises:
        UserError: the file is missing, unreadable, not JSON or not an object.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}; it is written beside the model by the export") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this {what}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged {what} (not JSON); export the model again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged {what} (not a JSON object); export the model again")
    return values


def _three_numbers(key: str, values: Any) -> tuple[float, ...]:
    numbers = list(values) if isinstance(values, list | tuple) else []
    real = all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers)
    if len(numbers) != 3 or not real or not all(math.isfinite(number) for number in numbers):
        raise UserError(
            f"model card: {key!r} must be three numbers, one per RGB channel, on the 0..255 scale"
        )
    return tuple(float(number) for number in numbers)


def _file_of_each_size(files: Any) -> dict[int, str]:
    """By ascending batch size. In JSON the sizes are text; the names are those of neighbours of the card."""
    found = {}
    for size, name in files.items() if isinstance(files, Mapping) else [("", "")]:
        plain = isinstance(name, str) and name and Path(name).name == name
        if not plain or not str(size).isdecimal() or int(size) < 1:
            raise UserError("model card: 'files' must give a file beside the card for each batch size")
        found[int(size)] = name
    return dict(sorted(found.items()))
