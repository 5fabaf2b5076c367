"""The one table of models, and networks by name for use in other code.

from src.zoo import create_network, list_models, load_weights
net = create_network("resnet9", num_classes=10)
"""

import difflib
from functools import partial
from typing import Any

from mindspore import nn

from .bireal.network import VARIANTS as BIREAL
from .bireal.network import BiRealNet
from .bireal.recipe import BiRealRecipe
from .bit.network import ResNetV2
from .bit.recipe import BiTRecipe
from .bit.weights import VARIANTS as BIT
from .checkpoint.weights import load_weights
from .common.errors import UserError
from .multigrain.network import VARIANTS as MULTIGRAIN
from .multigrain.network import MultiGrain
from .multigrain.recipe import MultiGrainRecipe
from .recipe import Recipe
from .resnet9.network import ResNet9
from .resnet9.recipe import ResNet9Recipe
from .shared_config import SharedConfig

__all__ = ["config_class_of", "create_network", "create_recipe", "list_models", "load_weights"]

# name -> (recipe, builder of the network)
_MODELS = {
    "resnet9": (ResNet9Recipe, ResNet9),
    **{
        f"bit_{name.lower()}": (BiTRecipe, partial(ResNetV2, block_units=units, width_factor=width))
        for name, (units, width) in BIT.items()
    },
    **{
        name: (BiRealRecipe, partial(BiRealNet, block_units=units, bottleneck=bottleneck))
        for name, (units, bottleneck) in BIREAL.items()
    },
    **{
        name: (MultiGrainRecipe, partial(MultiGrain, block_units=units, bottleneck=bottleneck))
        for name, (units, bottleneck) in MULTIGRAIN.items()
    },
}


def list_models() -> list[str]:
    """The names that `create_network` and the config key `model` know."""
    return sorted(_MODELS)


def _entry(name: str) -> tuple:
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1, cutoff=0.5)
        hint = f"the nearest known model is {near[0]}" if near else f"known are {', '.join(list_models())}"
        raise UserError(f"model: {name!r} given, but there is no such model; {hint}")
    return _MODELS[name]


def create_network(name: str, *, num_classes: int, **arguments: Any) -> nn.Cell:
    """A network with initial weights: NCHW float32 -> logits (N, num_classes), and `embed` for features.

    Args:
        arguments: the model's own keyword arguments (its network.py).

    Raises:
        UserError: there is no such model.
    """
    return _entry(name)[1](num_classes=num_classes, **arguments)


def config_class_of(name: str) -> type[SharedConfig]:
    """The config class of a model. Raises UserError as `create_network` does."""
    return _entry(name)[0].config_class


def create_recipe(config: SharedConfig) -> Recipe:
    """The recipe that a config means."""
    return _entry(config.model)[0](config)
