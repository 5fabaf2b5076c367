# SPDX-License-Identifier: Apache-2.0
"""BiT as a recipe: a plain classifier that starts from official weights, by the BiT-HyperRule if asked."""

import logging
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..model_utils.keys import default_of
from ..recipe import Recipe
from . import hyper_rule
from .config import BiTConfig
from .network import ResNetV2
from .weights import find_pretrained

log = logging.getLogger("quartet")

_LOOKED_AT = 32  # images whose median size stands for the data set
_EVALUATIONS = 10  # of a run by the hyper-rule, at most: an epoch of a few images can be one batch


class BiTRecipe(Recipe):
    """See `Recipe` and configs/bit/."""

    config_class = BiTConfig
    network_class = ResNetV2

    def pretrained_file(self) -> Path:
        c = self.config
        name = c.pretrained_name or "BiT-M-" + c.model.removeprefix("bit_").replace("r", "R")
        return find_pretrained(c.pretrained_path, name)

    def settled(self, *, size: int = 1) -> Recipe:
        """With `hyper_rule`: image sizes, mixup and length of the run from the training images.

        The length is the config's own where it gives one, by train_steps or epochs. The run is evaluated and
        saved 10 times, or less often if the config says so.
        """
        c = self.config
        if not c.hyper_rule:
            return self
        images = self.source("train")
        looked_at = np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int)
        sizes = [images.read(int(index)).shape[:2] for index in looked_at]
        height, width = sorted(sizes, key=np.prod)[len(sizes) // 2]
        resize_size, image_size = hyper_rule.resolution(height, width)
        keys = {
            "image_size": image_size,
            "mixup_alpha": hyper_rule.mixup_alpha(len(images)),
        }
        if c.train_crop == "resize":
            keys["resize_size"] = resize_size
        for name, value in keys.items():
            given = getattr(c, name)
            if given not in (value, default_of(type(c), name)):
                raise UserError(
                    f"{name}: {given!r} given, but hyper_rule sets it to {value!r} for {len(images)} images "
                    f"of {height}x{width}; leave it out, or set hyper_rule false"
                )
        if not c.train_steps and c.epochs == default_of(type(c), "epochs"):
            keys["train_steps"] = hyper_rule.schedule(len(images))[-1]
        log.info("hyper-rule for %d images of %dx%d: %s", len(images), height, width, keys)
        steps_per_epoch = max(1, len(images) // (c.batch_size * size))
        updates = keys.get("train_steps", c.train_steps)
        epochs = updates * c.accumulate_steps / steps_per_epoch if updates else c.epochs
        keys |= {name: max(getattr(c, name), epochs / _EVALUATIONS) for name in ("eval_every", "save_every")}
        return self.changed(**keys)

    def rates(self, *, updates: int, updates_per_epoch: float, images_per_update: int) -> np.ndarray:
        c = self.config
        if not c.hyper_rule:
            return super().rates(
                updates=updates, updates_per_epoch=updates_per_epoch, images_per_update=images_per_update
            )
        lr = c.lr * hyper_rule.base_rate(images_per_update) / hyper_rule.RATE
        if images_per_update != hyper_rule.BATCH:
            log.info("hyper-rule: rate %.4g for %d images an update", lr, images_per_update)
        examples = len(self.source("train"))
        if updates != (whole := hyper_rule.schedule(examples)[-1]):
            log.info(
                "hyper-rule: %d updates in place of %d; its warm-up and decays scale with them",
                updates,
                whole,
            )
        return hyper_rule.rates(examples, lr=lr, updates=updates)
