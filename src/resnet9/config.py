"""ResNet9's own keys."""

from typing import ClassVar, Literal

from ..layers.names import ACTIVATIONS
from ..model_utils.keys import FourCounts, key
from ..shared_config import SharedConfig


class ResNet9Config(SharedConfig):
    """The shared keys, and the network's arguments (network.py)."""

    DEFAULTS: ClassVar = {"model": "resnet9", "interpolation": "bicubic"}
    VARIANTS: ClassVar = {"resnet9": {}}

    widths: FourCounts = key((64, 128, 256, 512), "channels of prep, layer1, layer2, layer3", unit="channels")
    activation: Literal[ACTIVATIONS] = key("relu", "activation")
    celu_alpha: float = key(0.075, "CELU saturates at -celu_alpha", gt=0)
    pool_before_norm: bool = key(False, "pool right behind the convolution, before batch normalisation")
    head_scale: float = key(0.125, "factor on the logits", unit="factor", gt=0)
