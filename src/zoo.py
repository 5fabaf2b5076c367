"""The one table of models, and networks by name for use in other code.

from src.zoo import create_network, list_models, load_weights
net = create_network("resnet9", num_classes=10)
"""

import difflib
from typing import Any

from mindspore import nn

from .bireal.recipe import BiRealRecipe
from .bit.recipe import BiTRecipe
from .checkpoint.weights import load_weights
from .common.errors import UserError
from .model_utils.config import check
from .multigrain.recipe import MultiGrainRecipe
from .recipe import Recipe, build_network, network_keys
from .resnet9.recipe import ResNet9Recipe
from .shared_config import SharedConfig

__all__ = ["config_class_of", "create_network", "create_recipe", "list_models", "load_weights"]

_MODELS = {
    name: recipe
    for recipe in (ResNet9Recipe, BiTRecipe, BiRealRecipe, MultiGrainRecipe)
    for name in recipe.config_class.VARIANTS
}


def list_models() -> list[str]:
    """The names that `create_network` and the config key `model` know."""
    return sorted(_MODELS)


def _recipe_of(name: str) -> type[Recipe]:
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1, cutoff=0.5)
        hint = f"the nearest known model is {near[0]}" if near else f"known are {', '.join(list_models())}"
        raise UserError(f"model: {name!r} given, but there is no such model; {hint}")
    return _MODELS[name]


def create_network(name: str, *, num_classes: int, **arguments: Any) -> nn.Cell:
    """A network with initial weights: NCHW float32 -> logits (N, num_classes), and `embed` for features.

    Args:
        arguments: config keys that the signature of the network names (the model's network.py); the others
            have the model's defaults.

    Raises:
        UserError: there is no such model, or an argument is none of its network's or out of range.
    """
    recipe = _recipe_of(name)
    keys = network_keys(recipe.network_class)
    others = ", ".join(sorted(arguments.keys() - set(keys)))
    if others:
        raise UserError(f"{others}: no argument of {name}'s network, which takes {', '.join(keys)}")
    config = check({"model": name, **arguments}, recipe.config_class)
    return build_network(recipe.network_class, config, num_classes=num_classes)


def config_class_of(name: str) -> type[SharedConfig]:
    """The config class of a model. Raises UserError as `create_network` does."""
    return _recipe_of(name).config_class


def create_recipe(config: SharedConfig) -> Recipe:
    """The recipe that a config means."""
    return _recipe_of(config.model)(config)
