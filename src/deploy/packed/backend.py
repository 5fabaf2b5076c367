# SPDX-License-Identifier: Apache-2.0
"""PACKED among the formats of an export: written from a network, opened for the predictor."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.files import to_json
from ..card import ModelCard
from ..formats import ANY_BATCH
from ..predict import Opened
from .file import read_packed, write_packed
from .model import PackedModel

if TYPE_CHECKING:
    from mindspore import nn


def write_network(
    network: "nn.Cell", card: ModelCard, path: Path, *, real_weights: str = "float32"
) -> list[Path]:
    """Packs a network in evaluation mode, after `fold` and `layers.device.use_plain_operators`.

    Args:
        network: with `embed`.
        card: goes into the file. Its `input_type` says what infer.py gives the model, which takes both.
        path: the file.
        real_weights: float32, or float16; see `file.write_packed`.

    Raises:
        UserError: it has no 1-bit convolutions, or something that cannot be packed.
    """
    from ..onnx.translate import to_onnx
    from .writer import program_from_onnx

    model = to_onnx(network, card.model_copy(update={"input_type": "float32"}))
    write_packed(path, program_from_onnx(model), json.loads(card.to_text()), real_weights=real_weights)
    return [path]


def open_packed(path: str | os.PathLike, *, threads: int = 0) -> Opened:
    """A packed file for the predictor; threads as `PackedModel` takes them. Raises UserError as that."""
    model = PackedModel(path, threads=threads)
    card = _card(model.card, path)
    shape = (ANY_BATCH, len(card.class_names))
    return Opened(model.logits, (ANY_BATCH, *card.image_shape), card.input_type, shape)


def read_card(path: str | os.PathLike) -> ModelCard:
    """The card in a packed file. Raises UserError as `read_packed`, or if the card is damaged."""
    return _card(read_packed(path)[1], path)


def _card(values: dict[str, Any], path: str | os.PathLike) -> ModelCard:
    return ModelCard.from_text(to_json(values, indent=2) + "\n", path)
