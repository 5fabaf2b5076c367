# SPDX-License-Identifier: Apache-2.0
"""The one table of models, and networks by name for use in other code.

    from src.zoo import create_network, list_models, load_weights
    net = create_network("resnet9", num_classes=10)

Names and configs need no MindSpore; it is imported with the first network, recipe or weights.
"""

import difflib
import functools
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .common.errors import UserError
from .model_utils.config import check
from .shared_config import SharedConfig

if TYPE_CHECKING:
    from mindspore import nn

    from .checkpoint.weights import load_weights
    from .recipe import Recipe

__all__ = [
    "config_class_of",
    "create_network",
    "create_recipe",
    "list_models",
    "load_weights",
    "recipe_class_of",
]

# Package -> each NAME of its classes: NAMEConfig in config.py, whose VARIANTS name the models, and NAMERecipe
# in recipe.py, which says what the network is. A package of one plain classifier has no recipe.py: its
# network is NAME in network.py.
_PACKAGES = {
    "resnet9": ("ResNet9", "CifarNet", "ResNet", "VGG"),
    "bit": ("BiT",),
    "bireal": ("BiReal",),
    "multigrain": ("MultiGrain",),
}


def _class_in(package: str, module: str, name: str) -> type:
    return getattr(importlib.import_module(f".{package}.{module}", __package__), name)


def _table() -> dict[str, tuple[str, str]]:
    """Model -> its package and NAME."""
    return {
        model: (package, name)
        for package, names in _PACKAGES.items()
        for name in names
        for model in _class_in(package, "config", f"{name}Config").VARIANTS
    }


def list_models() -> list[str]:
    """The names that `create_network` and the config key `model` know."""
    return sorted(_table())


def _row_of(name: str) -> tuple[str, str]:
    if not name:
        raise UserError(
            "model: none given; name a recipe, --config_path configs/MODEL/RECIPE.yaml, or one of "
            f"--model {', '.join(list_models())}"
        )
    table = _table()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
        hint = f"the nearest known model is {near[0]}" if near else f"known are {', '.join(list_models())}"
        raise UserError(f"model: {name!r} given, but there is no such model; {hint}")
    return table[name]


def config_class_of(name: str) -> type[SharedConfig]:
    """The config class of a model, "": of the shared keys. Raises UserError as `create_network` does."""
    if not name:
        return SharedConfig
    package, name = _row_of(name)
    return _class_in(package, "config", f"{name}Config")


@functools.cache
def recipe_class_of(name: str) -> "type[Recipe]":
    """The recipe class of a model. Raises UserError as `create_network` does."""
    package, name = _row_of(name)
    if importlib.util.find_spec(f".{package}.recipe", __package__):
        return _class_in(package, "recipe", f"{name}Recipe")
    from .recipe import Recipe

    config_class = _class_in(package, "config", f"{name}Config")
    plain = {"config_class": config_class, "network_class": _class_in(package, "network", name)}
    return type(f"{name}Recipe", (Recipe,), plain)


def create_recipe(config: SharedConfig, sources: Mapping[str, Any] | None = None) -> "Recipe":
    """The recipe that a config means, with images by split in place of those of `data_path`."""
    return recipe_class_of(config.model)(config, sources)


def create_network(name: str, *, num_classes: int, **arguments: Any) -> "nn.Cell":
    """A network with initial weights: NCHW float32 -> logits (N, num_classes), and `embed` for features.

    Args:
        arguments: config keys that the signature of the network names (the model's network.py); the others
            have the model's defaults.

    Raises:
        UserError: there is no such model, or an argument is none of its network's or out of range.
    """
    from .layers.build import build_network, network_keys

    network_class = recipe_class_of(name).network_class
    keys = network_keys(network_class)
    others = ", ".join(sorted(arguments.keys() - set(keys)))
    if others:
        raise UserError(f"{others}: no argument of {name}'s network, which takes {', '.join(keys)}")
    config = check({"model": name, **arguments}, config_class_of(name))
    return build_network(network_class, config, num_classes=num_classes)


def __getattr__(name: str) -> Any:
    if name == "load_weights":
        from .checkpoint.weights import load_weights

        return load_weights
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
