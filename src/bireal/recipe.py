"""Bi-Real Net as a recipe: a plain classifier whose binary weights are not decayed."""

from mindspore import nn

from ..layers.binary import is_sign
from ..optim.groups import ParamRule
from ..recipe import Recipe
from .config import BiRealConfig
from .monitor import BinaryMonitor
from .network import Binarisation, BiRealNet


class BiRealRecipe(Recipe):
    """See `Recipe` and configs/bireal/."""

    config_class = BiRealConfig

    @property
    def side_multiple(self) -> int:
        """Its average pooling halves a map by windows that tile it, its convolutions any map."""
        return 32 if self.config.stem == "imagenet" else 16

    def network(self, *, num_classes: int) -> nn.Cell:
        c = self.config
        block_units, bottleneck = c.structure
        return BiRealNet(
            num_classes=num_classes,
            block_units=block_units,
            widths=c.widths,
            bottleneck=bottleneck,
            stem=c.stem,
            binarisation=Binarisation(
                activation=c.activation,
                binary_weights=c.binary_weights,
                weight_gradient=c.weight_gradient,
                divide_by_deviation=c.divide_by_deviation,
                clip_after_add=c.clip_after_add,
            ),
            head_norm=c.head_norm,
            seed=c.seed,
        )

    def monitor(self, network: nn.Cell, inputs: nn.Cell) -> BinaryMonitor | None:
        c = self.config
        return BinaryMonitor(network, inputs) if c.binary_weights or is_sign(c.activation) else None

    def param_rules(self) -> list[ParamRule]:
        """As a plain classifier's, but for the weights whose size does not count: no decay pulls at signs."""
        rules = super().param_rules()
        if not self.config.binary_weights:
            return rules
        basic, bottleneck = r"\.binary_conv\.", r"^layers\.(0\.conv[23]|[1-9]\d*\.conv\d)\.weight$"
        pattern = bottleneck if self.config.structure[1] else basic
        return [ParamRule("binary weights", pattern, 0.0), *rules]
