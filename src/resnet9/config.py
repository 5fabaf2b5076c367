"""ResNet9's own keys."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import ACTIVATIONS
from ..model_utils.keys import FourCounts, key, refusal
from ..shared_config import SharedConfig

_LEAST = 8  # pixels


class ResNet9Config(SharedConfig):
    """The shared keys, and the network's arguments (network.py)."""

    DEFAULTS: ClassVar = {"model": "resnet9", "interpolation": "bicubic"}
    VARIANTS: ClassVar = {"resnet9": {}}

    widths: FourCounts = key((64, 128, 256, 512), "channels of prep, layer1, layer2, layer3", unit="channels")
    activation: Literal[ACTIVATIONS] = key("relu", "activation")
    celu_alpha: float = key(0.075, "CELU saturates at -celu_alpha", gt=0)
    pool_before_norm: bool = key(False, "pool right behind the convolution, before batch normalisation")
    head_scale: float = key(0.125, "factor on the logits", unit="factor", gt=0)

    @model_validator(mode="after")
    def _leaves_a_pixel(self) -> "ResNet9Config":
        for name in ("image_size", "eval_image_size"):
            size = getattr(self, name)
            if size < _LEAST and (name, size) != ("eval_image_size", 0):
                raise refusal(name, size, f"at least {_LEAST}: the network halves an image three times")
        return self
