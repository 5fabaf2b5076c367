"""ResNet9 as a recipe: a plain classifier, so only its network is its own."""

from mindspore import nn

from ..recipe import Recipe
from .config import ResNet9Config
from .network import ResNet9


class ResNet9Recipe(Recipe):
    """See `Recipe` and configs/resnet9/."""

    config_class = ResNet9Config
    side_multiple = 32

    def network(self, *, num_classes: int) -> nn.Cell:
        c = self.config
        return ResNet9(
            num_classes=num_classes,
            widths=c.widths,
            activation=c.activation,
            celu_alpha=c.celu_alpha,
            pool_before_norm=c.pool_before_norm,
            head_scale=c.head_scale,
            seed=c.seed,
        )
