# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net's own keys, and its defaults for the shared ones: the official ImageNet training."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import ACTIVATIONS, STEMS, WEIGHT_GRADIENTS
from ..model_utils.keys import FourCounts, key, refusal
from ..shared_config import SharedConfig


class BiRealConfig(SharedConfig):
    """The shared keys and the network's arguments (network.py)."""

    DEFAULTS: ClassVar = {
        "model": "birealnet18",
        "image_mean": (123.675, 116.28, 103.53),
        "image_std": (58.395, 57.12, 57.375),
        "image_size": 224,
        "train_crop": "random_resized",
        "optimizer": "adam",
        "lr": 0.001,
        "lr_schedule": "linear",
        "lr_scale_rule": "linear",
        "warmup_epochs": 0.0,
        "weight_decay": 0.0,
        "eval_batch_size": 100,
    }
    VARIANTS: ClassVar = {
        "birealnet18": {"block_units": (4, 4, 4, 4), "bottleneck": False},
        "birealnet34": {"block_units": (6, 8, 12, 6), "bottleneck": False},
        "birealnet50": {"block_units": (3, 4, 6, 3), "bottleneck": True},
    }

    block_units: FourCounts = key(
        (4, 4, 4, 4), "blocks in each of the four stages; by default those of the model", unit="blocks"
    )
    bottleneck: bool = key(
        False,
        "blocks of three convolutions, 1x1, 3x3 and 1x1, in place of one 3x3; by default that of the model",
    )
    widths: FourCounts = key(
        (64, 128, 256, 512),
        "channels of the four stages; the output of a bottleneck has four times as many",
        unit="channels",
    )
    stem: Literal[STEMS] = key(
        "imagenet",
        "first layers; imagenet: a 7x7 convolution and max-pooling, each with stride 2; small: a 3x3 "
        "convolution with stride 2",
    )
    activation: Literal[ACTIVATIONS] = key(
        "approx_sign",
        "what each block does to its input; approx_sign: the sign, with Bi-Real Net's gradient; others as "
        "in real-valued networks",
    )
    binary_weights: bool = key(True, "1-bit weights in the blocks; false: real ones")
    weight_gradient: Literal[WEIGHT_GRADIENTS] = key(
        "clipped",
        "gradient of the sign of 1-bit weights; clipped: straight-through where the weight is within [-1, "
        "1]; scaled_identity: the earlier port's",
    )
    divide_by_deviation: bool = key(
        False,
        "in training, divide each block's input by its standard deviation over an image (the earlier port)",
    )
    clip_after_add: bool = key(
        False, "clip to [-1, 1] after the stem and after each addition (the earlier port's Hardtanh)"
    )
    head_norm: bool = key(False, "batch normalisation before the classifier (the earlier port)")

    @model_validator(mode="after")
    def _is_halved_evenly(self) -> "BiRealConfig":
        factor = 32 if self.stem == "imagenet" else 16
        for name in ("image_size", "eval_image_size"):
            if getattr(self, name) % factor:
                allowed = f"multiples of {factor} with stem {self.stem}: a shortcut halves the image evenly"
                raise refusal(name, getattr(self, name), allowed)
        return self
