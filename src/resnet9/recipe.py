"""ResNet9 as a recipe: a plain classifier, so only its network is its own."""

from ..recipe import Recipe
from .config import ResNet9Config
from .network import ResNet9


class ResNet9Recipe(Recipe):
    """See `Recipe` and configs/resnet9/."""

    config_class = ResNet9Config
    network_class = ResNet9
    side_multiple = 32
