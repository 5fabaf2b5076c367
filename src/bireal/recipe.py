# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net as a recipe: a plain classifier whose binary weights are not decayed."""

from mindspore import nn

from ..layers.activation import is_sign
from ..optim.groups import ParamRule
from ..recipe import Recipe
from .config import BiRealConfig
from .monitor import BinaryMonitor
from .network import BiRealNet


class BiRealRecipe(Recipe):
    """See `Recipe` and configs/bireal/."""

    config_class = BiRealConfig
    network_class = BiRealNet

    @property
    def side_multiple(self) -> int:
        """Its average pooling halves a map by windows that tile it, its convolutions any map."""
        return 32 if self.config.stem == "imagenet" else 16

    def monitor(self, network: nn.Cell, inputs: nn.Cell) -> BinaryMonitor | None:
        c = self.config
        return BinaryMonitor(network, inputs) if c.binary_weights or is_sign(c.activation) else None

    def param_rules(self) -> list[ParamRule]:
        """As a plain classifier's, but for the weights whose size does not count: no decay pulls at signs."""
        rules = super().param_rules()
        if not self.config.binary_weights:
            return rules
        basic, bottleneck = r"\.binary_conv\.", r"^layers\.(0\.conv[23]|[1-9]\d*\.conv\d)\.weight$"
        pattern = bottleneck if self.config.bottleneck else basic
        return [ParamRule("binary weights", pattern, 0.0), *rules]
