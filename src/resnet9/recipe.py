# SPDX-License-Identifier: Apache-2.0
"""ResNet9 and the other CIFAR networks as a recipe: a plain classifier, whose input may be whitened."""

import logging
import math
from collections.abc import Iterator

import numpy as np
from mindspore import nn

from ..layers.input_whitening import FORMS, whiten
from ..optim.groups import ParamRule, small_decay
from ..recipe import Recipe
from .cifarnet import CifarNet
from .config import CifarNetConfig, ResNet9Config, ResNetConfig, VGGConfig
from .network import ResNet9
from .resnet import ResNet
from .vgg import VGG

log = logging.getLogger("quartet")


class CifarRecipe(Recipe):
    """See `Recipe` and configs/resnet9/."""

    def load_pretrained(self, network: nn.Cell) -> None:
        """As `Recipe`; without `pretrained_path` the input whitening is computed from training images."""
        super().load_pretrained(network)
        c = self.config
        if c.input_whitening == "none" or c.pretrained_path:
            return
        form = FORMS[c.input_whitening]
        count = min(c.whitening_images or form.images, len(self.source("train")))
        whiten(network.whiten, self._some_images(count), eps=c.whitening_eps or form.eps)
        log.info("input whitening from %d training images", count)

    def param_rules(self) -> list[ParamRule]:
        """As `Recipe`; the bias of airbench's whitening has the rate `lr`, for `whitening_bias_epochs`.

        It stops with the first stage at the latest: behind it the backward pass would go through all stages.
        """
        c, rules = self.config, super().param_rules()
        if c.input_whitening == "airbench":
            epochs = min([c.whitening_bias_epochs or math.inf, *c.freeze_epochs[:1]])
            rules.insert(0, ParamRule("whitening bias", r"^whiten\.bias$", small_decay(c), epochs=epochs))
        return rules

    def _some_images(self, count: int) -> Iterator[np.ndarray]:
        """Training images, evenly from the whole set, as evaluation sees them: (3, H, W) float32."""
        source, preparation = self.source("train"), self.preparation
        for index in np.linspace(0, len(source) - 1, count).astype(int):
            yield preparation.normalise(source.read(int(index), preparation.plan_square))


class ResNet9Recipe(CifarRecipe):
    """Of ResNet9."""

    config_class = ResNet9Config
    network_class = ResNet9


class CifarNetRecipe(CifarRecipe):
    """Of airbench's network."""

    config_class = CifarNetConfig
    network_class = CifarNet


class ResNetRecipe(CifarRecipe):
    """Of the ResNets of 6n + 2 layers."""

    config_class = ResNetConfig
    network_class = ResNet


class VGGRecipe(CifarRecipe):
    """Of the VGGs."""

    config_class = VGGConfig
    network_class = VGG
