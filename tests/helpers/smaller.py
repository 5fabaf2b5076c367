# SPDX-License-Identifier: Apache-2.0
"""Recipes made small: fewer blocks, channels and images, the same primitives."""

from src.model_utils.config import load_config
from src.zoo import config_class_of

_FOUR = {"block_units": [1, 1, 1, 1], "widths": [8, 8, 16, 16]}
# By the beginning of the model's name.
SMALLER = {
    "resnet9": {"widths": [4, 4, 8, 8]},
    "cifarnet": {"widths": [4, 4, 8]},
    "resnet": {"width_factor": 0.25, "stage_blocks": 1},
    "vgg": {"width_factor": 0.0625},
    "bit": {"block_units": [1, 1, 1, 1], "width_factor": 0.5},
    "bireal": _FOUR,
    "multigrain": _FOUR,
}


def kind_of(model: str) -> str:
    """The beginning of its name that SMALLER has."""
    return next(kind for kind in SMALLER if model.startswith(kind))


def smaller_network(model: str) -> dict:
    """The keys that make a model small."""
    return SMALLER[kind_of(model)]


def smaller(path) -> list[str]:
    """The words that make a recipe small."""
    config = load_config({}, config_class_of=config_class_of, config_path=path)
    keys = {**smaller_network(config.model), "batch_size": 6, "eval_batch_size": 6}
    if getattr(config, "ghost_batch", 0):
        keys["ghost_batch"] = 3
    return as_words(keys)


def as_words(keys: dict) -> list[str]:
    return [word for key, value in keys.items() for word in (f"--{key}", str(value))]
