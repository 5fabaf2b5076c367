"""BiT's own keys, and its defaults for the shared ones: the official fine-tuning."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..model_utils.keys import Counts, key
from ..shared_config import SharedConfig
from .weights import VARIANTS


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
        "lr": 0.003,
        "warmup_epochs": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "eval_batch_size": 100,
    }

    pretrained_name: str = key(
        "", "official file in the folder pretrained_path; empty: BiT-M and the network, as BiT-M-R50x1"
    )
    block_units: Counts = key((), "units of each of the four blocks; []: those of the model", unit="units")
    width_factor: float = key(0.0, "factor on all channels, a multiple of 0.5; 0: that of the model", ge=0)
    stride_padding: Literal["symmetric", "same"] = key(
        "symmetric", "padding of 3x3 convolutions with stride 2; same: the earlier port's"
    )
    recompute: bool = key(False, "keep less for the backward pass and compute it again: memory for time")
    hyper_rule: bool = key(
        False, "BiT-HyperRule: image sizes, steps, rates and mixup from the data set; batch 512 is its own"
    )

    @model_validator(mode="after")
    def _is_a_network(self) -> "BiTConfig":
        if self.block_units and len(self.block_units) != 4:
            raise ValueError(
                f"block_units: {list(self.block_units)} given, allowed: a list of 4 whole numbers > 0, or []"
            )
        if (2 * self.width_factor) % 1:
            raise ValueError(f"width_factor: {self.width_factor:g} given, allowed: a multiple of 0.5")
        return self

    @property
    def structure(self) -> tuple[tuple[int, ...], float]:
        """Units of each block and width factor: the config's own, else those of the model's name."""
        units, width = VARIANTS[self.variant]
        return self.block_units or units, self.width_factor or width

    @property
    def variant(self) -> str:
        """The model's name in the papers, as R50x1."""
        return "R" + self.model.removeprefix("bit_r")
