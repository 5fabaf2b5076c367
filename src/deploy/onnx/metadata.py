# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says of itself: how to feed it and read it, and whether it is whole."""

import hashlib
import json
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ...common.errors import UserError
from ..card import INPUT_RULES, RESIZE_RULE, ModelCard

PRODUCER, VERSION = "quartet", "1"  # of what this package writes, not of the package
LARGEST_FILE = (1 << 31) - (1 << 24)
"""Bytes of constants up to which they stand in the file: a protobuf is 2 GiB long at most."""

_CARD, _SEAL = "card", "sha256"


def describe(model: onnx.ModelProto, card: ModelCard) -> None:
    """Writes the card into the model's metadata: its values one by one, for people, and as a whole.

    A value that is no text is JSON.
    """
    how = card.preparation
    values = {
        "model": card.model,
        "class_names": list(card.class_names),
        "image_size": how.image_size,
        "mean": how.mean,
        "std": how.std,
        "crop": how.crop,
        "crop_percentage": how.crop_percentage,
        "interpolation": how.interpolation,
        "input": f"images: {INPUT_RULES[card.input_type]}",
        "resize": RESIZE_RULE,
        "outputs": "logits: one a class, in the order of class_names; embedding: the features before the "
        "classifier, not normalised",
        _CARD: card.model_copy(update={"files": {}}).to_text(),
    }
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
    }
    onnx.helper.set_model_props(model, texts)
    model.producer_name, model.producer_version = PRODUCER, VERSION
    side = how.image_size
    model.doc_string = (
        f"{card.model}, {len(card.class_names)} classes, images of {side} x {side}; see metadata_props for "
        "how to prepare them"
    )


def write_onnx(model: onnx.ModelProto, card: ModelCard, path: Path) -> list[Path]:
    """Writes a model with its card and a checksum of the whole file in its metadata.

    The checksum is the last entry of the metadata, at the file's end, and is of all bytes before it.
    Constants of more than LARGEST_FILE together stand in a second file, whose name has `.data` behind the
    first's.

    Returns:
        the files: the model, and the second.
    """
    describe(model, card)
    parts = [path]
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE:
        parts.append(path.with_name(f"{path.name}.data"))
        onnx.external_data_helper.convert_model_to_external_data(
            model, location=parts[1].name, size_threshold=512
        )
        onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    body = model.SerializeToString(deterministic=True)
    path.write_bytes(body + _seal(body))
    return parts


def read_card(path: Path) -> ModelCard:
    """The card of a file that `write_onnx` wrote, after the file was compared with its checksum.

    Raises:
        UserError: the file cannot be read, is not such a one, is damaged, or needs the folder of its export;
            the message names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    length = len(_seal(b""))
    if data[-length:] != _seal(data[:-length]):
        raise UserError(
            f"{path}: damaged, changed since the export, or not written by export.py; export the model again"
        )
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX file; export the model again") from error
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise UserError(f"{path}: its weights stand in another file; leave it in the folder of its export")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    return ModelCard.from_text(texts.get(_CARD, ""), path)


def _seal(body: bytes) -> bytes:
    """An entry of the metadata with the checksum, which a protobuf can have behind its other fields."""
    entry = onnx.StringStringEntryProto(key=_SEAL, value=hashlib.sha256(body).hexdigest())
    return onnx.ModelProto(metadata_props=[entry]).SerializeToString()
