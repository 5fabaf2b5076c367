# SPDX-License-Identifier: Apache-2.0
"""What makes embeddings of pictures, from whatever file: weights of a network, or an ONNX file of it.

MindSpore is not imported for an ONNX file.
"""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common.errors import UserError
from .common.files import checksum, relative_to
from .data.decode import admit
from .deploy.exported import is_export, read_export
from .deploy.formats import format_of
from .model_utils.config import load_config, parse_overrides
from .model_utils.keys import Keys
from .retrieval.door import evaluate_from_flags
from .retrieval.embedding import Embedder
from .zoo import config_class_of

OF_EXPORTS = ("data_path", "damaged_images", "max_image_pixels", "workers", "device_target")
"""The keys that an exported model leaves open; its card has the others."""

OPTIONS = ("config_path", "class_names", "raw_weights")
"""How weights are read, see `open_trained`."""


@dataclass(frozen=True)
class OpenedEmbedder:
    """An embedder and what is known of it.

    Attributes:
        embedder: ready to run.
        path: the file of the model.
        identity: what its embeddings depend on, whichever keys said it, of JSON's types.
        facts: which model it is, for a report.
        config: the keys; of an exported model OF_EXPORTS alone mean something.
    """

    embedder: Embedder
    path: Path
    identity: dict[str, Any]
    facts: dict[str, Any]
    config: Keys


def is_exported(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of an export, or by its suffix a file of one."""
    return is_export(path) or format_of(Path(path)) is not None


def open_embedder(
    path: str | os.PathLike, keys: Mapping[str, Any], *, flags: Iterable[str] = (), **how: Any
) -> OpenedEmbedder:
    """Opens weights of any kind, a run's folder, or an ONNX file, alone or in the folder of its export.

    An embedder of weights takes whole pictures; an ONNX file takes squares of one size, as its card says.

    Args:
        path: the file or folder.
        keys: config keys that come after the checkpoint's own; of an exported model only OF_EXPORTS.
        flags: the door's own, to find the nearest name for an unknown key.
        how: what else `open_trained` takes; of an exported model nothing of it may be set.

    Raises:
        UserError: as `open_trained` and `read_export`, a key is the card's business, or the exported model
            gives no embeddings.
    """
    if is_exported(path):
        return _exported(Path(path), keys, flags, how)
    from .trained import open_trained

    trained = open_trained(path, keys, headless=True, flags=flags, **how)
    if trained.device.size > 1:
        raise UserError("pictures are embedded on one card; start it without msrun")
    config = trained.recipe.config
    return OpenedEmbedder(
        Embedder.from_trained(trained, batch_size=min(32, config.eval_batch_size)),
        Path(trained.checkpoint.path),
        _identity(trained),
        trained.facts,
        config,
    )


def evaluate_retrieval(flags: argparse.Namespace, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The retrieval evaluation of eval.py: the table for people, and the figures for JSON.

    Raises:
        UserError: as `open_embedder` and `retrieval.door.evaluate_from_flags`.
    """
    how = {name: getattr(flags, name) for name in OPTIONS}
    opened = open_embedder(
        flags.checkpoint_path, parse_overrides(words), flags=vars(flags), with_data=True, **how
    )
    text, figures = evaluate_from_flags(opened.embedder, opened.config, flags)
    return text, opened.facts | figures


def refuse_exported(path: str) -> None:
    """Raises a UserError for an exported model, which eval.py classifies nothing with."""
    if is_exported(path):
        raise UserError(
            f"checkpoint_path: {path} is an exported model; to count how many it has right: "
            f"python infer.py --model_path {path} DATA --labels folders --summary"
        )


def _identity(trained: Any) -> dict[str, Any]:
    from .layers.build import network_keys

    recipe, how = trained.recipe, trained.recipe.preparation
    keys = {"amp_level", *network_keys(recipe.network_class)} - {"seed"}  # which is of initial weights
    return {
        "checkpoint_sha256": checksum(trained.checkpoint.path),
        "averaged_weights": trained.averaged,
        "eval_image_size": how.image_size,
        "interpolation": how.interpolation,
        "image_mean": how.mean,
        "image_std": how.std,
        **recipe.config.model_dump(mode="json", include=keys),
    }


def _exported(
    path: Path, keys: Mapping[str, Any], flags: Iterable[str], how: Mapping[str, Any]
) -> OpenedEmbedder:
    from .deploy.backends import open_predictor

    if not path.exists():
        raise UserError(f"checkpoint_path: {path} does not exist{relative_to(path)}")
    options = [name for name in OPTIONS if how.get(name)]
    if given := [*options, *(name for name in keys if name not in OF_EXPORTS)]:
        raise UserError(
            f"{given[0]}: given, and {path} is an exported model, whose card has all but "
            f"{', '.join(OF_EXPORTS)}; leave it out"
        )
    config = load_config(keys, config_class_of=config_class_of, base={}, flags=flags)
    admit(config.max_image_pixels)
    exported = read_export(path)
    file, card = exported.files[0], exported.card
    predictor = open_predictor(path, device_target=config.device_target)
    if not predictor.gives_embeddings:
        raise UserError(f"checkpoint_path: {file} gives no embeddings; export it to ONNX: --file_format ONNX")
    return OpenedEmbedder(
        Embedder.from_predictor(predictor, workers=config.workers),
        file,
        {"checkpoint_sha256": checksum(file), **card.model_dump(mode="json", include={"preparation"})},
        {"checkpoint": str(file), "model": card.model, "backend": predictor.backend},
        config,
    )
