"""Bi-Real Net's own keys, and its defaults for the shared ones: the official ImageNet training."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..model_utils.keys import Counts, key
from ..shared_config import SharedConfig
from .network import VARIANTS, WIDTHS


class BiRealConfig(SharedConfig):
    """The shared keys and the network's arguments (network.py)."""

    DEFAULTS: ClassVar = {
        "model": "birealnet18",
        "image_mean": (123.675, 116.28, 103.53),
        "image_std": (58.395, 57.12, 57.375),
        "image_size": 224,
        "train_crop": "random_resized",
        "eval_crop": "centre",
        "optimizer": "adam",
        "lr": 0.001,
        "lr_schedule": "linear",
        "lr_scale_rule": "linear",
        "warmup_epochs": 0.0,
        "weight_decay": 0.0,
        "eval_batch_size": 100,
    }

    block_units: Counts = key((), "blocks of each of the four stages; []: those of the model", unit="blocks")
    widths: Counts = key(WIDTHS, "channels of the four stages, of bottlenecks a quarter", unit="channels")
    stem: Literal["imagenet", "small"] = key(
        "imagenet", "7x7 convolution and max-pool, both stride 2; small: 3x3 convolution, stride 2"
    )
    activation: Literal["approx_sign", "ste_sign", "relu", "leaky_clip", "clip"] = key(
        "approx_sign", "of each block's input: a sign with its slope, or what a real-valued network has"
    )
    binary_weights: bool = key(True, "1-bit weights in the blocks; false: real ones")
    weight_gradient: Literal["clipped", "scaled_identity"] = key(
        "clipped", "straight-through gradient of 1-bit weights; scaled_identity: the earlier port's"
    )
    divide_by_deviation: bool = key(
        False, "divide each block's input by an image's deviation in training (the earlier port's)"
    )
    clip_after_add: bool = key(
        False, "clip to [-1, 1] behind each addition and the stem (the earlier port's Hardtanh)"
    )
    head_norm: bool = key(False, "batch normalisation before the classifier (the earlier port's)")

    @model_validator(mode="after")
    def _is_a_network(self) -> "BiRealConfig":
        if len(self.block_units) not in (0, 4):
            raise ValueError(
                f"block_units: {list(self.block_units)} given, allowed: a list of 4 whole numbers > 0, or []"
            )
        if len(self.widths) != 4:
            raise ValueError(f"widths: {list(self.widths)} given, allowed: a list of 4 whole numbers > 0")
        factor = 32 if self.stem == "imagenet" else 16
        for name in ("image_size", "eval_image_size"):
            if getattr(self, name) % factor:
                raise ValueError(
                    f"{name}: {getattr(self, name)} given, allowed: multiples of {factor} with stem "
                    f"{self.stem}: a shortcut halves the image evenly"
                )
        return self

    @property
    def structure(self) -> tuple[tuple[int, ...], bool]:
        """Blocks of each stage, the config's own or those of the model's name; and whether bottlenecks."""
        units, bottleneck = VARIANTS[self.model]
        return self.block_units or units, bottleneck
