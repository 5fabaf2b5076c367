# SPDX-License-Identifier: Apache-2.0
"""BiT's own keys, and its defaults for the shared ones: the official fine-tuning."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import PADDINGS
from ..model_utils.keys import FourCounts, key, refusal
from ..shared_config import SharedConfig


class BiTConfig(SharedConfig):
    """The shared keys, the network's arguments (network.py), and the BiT-HyperRule (hyper_rule.py)."""

    DEFAULTS: ClassVar = {
        "model": "bit_r50x1",
        "pretrained_head": "zero",
        "image_mean": (127.5, 127.5, 127.5),
        "image_std": (127.5, 127.5, 127.5),
        "image_size": 128,
        "train_crop": "resize",
        "resize_size": 160,
        "eval_crop": "squash",
        "interpolation": "tf_bilinear",
        "lr": 0.003,
        "warmup_epochs": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "eval_batch_size": 100,
    }
    VARIANTS: ClassVar = {
        "bit_r50x1": {"block_units": (3, 4, 6, 3), "width_factor": 1.0},
        "bit_r50x3": {"block_units": (3, 4, 6, 3), "width_factor": 3.0},
        "bit_r101x1": {"block_units": (3, 4, 23, 3), "width_factor": 1.0},
        "bit_r101x3": {"block_units": (3, 4, 23, 3), "width_factor": 3.0},
        "bit_r152x2": {"block_units": (3, 8, 36, 3), "width_factor": 2.0},
        "bit_r152x4": {"block_units": (3, 8, 36, 3), "width_factor": 4.0},
    }

    pretrained_name: str = key(
        "",
        "name of the official file in the folder pretrained_path; empty: BiT-M of this network, as "
        "BiT-M-R50x1",
    )
    block_units: FourCounts = key(
        (3, 4, 6, 3), "units in each of the four blocks; by default those of the model", unit="units"
    )
    width_factor: float = key(
        1.0,
        "factor on the channels of all layers, a multiple of 0.5; by default that of the model",
        unit="factor",
        gt=0,
    )
    stride_padding: Literal[PADDINGS] = key(
        "symmetric",
        "padding of 3x3 convolutions with stride 2; symmetric: the official one; same: the earlier port's",
    )
    recompute: bool = key(False, "save memory: keep less for the backward pass, and compute it again there")
    hyper_rule: bool = key(
        False,
        "BiT-HyperRule: choose image sizes, number of updates, rates and mixup by the data set; it is "
        "made for batches of 512",
    )

    @model_validator(mode="after")
    def _is_divided_by_the_groups(self) -> "BiTConfig":
        if (2 * self.width_factor) % 1:
            raise refusal("width_factor", self.width_factor, "a multiple of 0.5")
        return self
