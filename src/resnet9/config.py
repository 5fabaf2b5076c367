"""The keys that the CIFAR networks share, and ResNet9's own."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import ACTIVATIONS, INPUT_WHITENING, NORM_SCALES
from ..model_utils.keys import FourCounts, key, refusal
from ..shared_config import SharedConfig


class CifarConfig(SharedConfig):
    """The shared keys, and those of the CIFAR networks; a network takes what its signature names."""

    activation: Literal[ACTIVATIONS] = key("relu", "activation")
    celu_alpha: float = key(0.075, "CELU saturates at -celu_alpha", gt=0)
    pool_before_norm: bool = key(False, "pool right behind the convolution, before batch normalisation")
    head_scale: float = key(1.0, "factor on the logits", unit="factor", gt=0)
    norm_momentum: float = key(
        0.1, "weight of a new batch in batch normalisation's running statistics (airbench: 0.4)", gt=0, le=1
    )
    norm_eps: float = key(1e-5, "batch normalisation: added to the variance (airbench: 1e-12)", gt=0, le=1)
    norm_scale: Literal[NORM_SCALES] = key(
        "trained",
        "scale of batch normalisation; fixed: 1, only the offset is trained (cifar10-fast, airbench)",
    )
    ghost_batch: int = key(
        0,
        "ghost batch normalisation: a training batch is normalised in splits of so many images "
        "(cifar10-fast: 32); 0: the batch as a whole",
        unit="images",
        ge=0,
    )
    input_whitening: Literal[INPUT_WHITENING] = key(
        "none",
        "fixed first convolution that decorrelates patches of the training images; dawnbench: 3x3, with a "
        "1x1 convolution behind it (cifar10-fast); airbench: 2x2 with both signs and a trained bias",
    )
    whitening_eps: float = key(
        0.0,
        "input whitening: added to the eigenvalues; 0: the form's own, dawnbench 1e-2, airbench 5e-4",
        ge=0,
    )
    whitening_images: int = key(
        0,
        "input whitening: training images that it is computed from; 0: the form's own, dawnbench 10000, "
        "airbench 5000",
        unit="images",
        ge=0,
    )
    dirac_init: bool = key(
        False,
        "convolutions behind the first start by copying their input: their first filters are the identity "
        "(airbench)",
    )

    @model_validator(mode="after")
    def _whitening_fits(self) -> "CifarConfig":
        for name in ("whitening_eps", "whitening_images"):
            if getattr(self, name) and self.input_whitening == "none":
                raise refusal(name, getattr(self, name), "0 with input_whitening none")
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> "CifarConfig":
        if self.ghost_batch and self.batch_size % self.ghost_batch:
            raise refusal(
                "ghost_batch", self.ghost_batch, f"0, or a divisor of batch_size ({self.batch_size})"
            )
        if self.ghost_batch and self.sync_bn:
            raise refusal("sync_bn", True, "false with a ghost_batch")
        return self


class ResNet9Config(CifarConfig):
    """The keys of the CIFAR networks, and ResNet9's widths (network.py)."""

    DEFAULTS: ClassVar = {"model": "resnet9", "interpolation": "bicubic", "head_scale": 0.125}
    VARIANTS: ClassVar = {"resnet9": {}}

    widths: FourCounts = key((64, 128, 256, 512), "channels of prep, layer1, layer2, layer3", unit="channels")

    @model_validator(mode="after")
    def _leaves_a_pixel(self) -> "ResNet9Config":
        for name in ("image_size", "eval_image_size"):
            size = getattr(self, name)
            # The whitening of airbench takes a pixel off, and then the network halves an image three times.
            least = 9 if self.input_whitening == "airbench" else 8
            if size < least and (name, size) != ("eval_image_size", 0):
                raise refusal(name, size, f"at least {least}: the network halves an image three times")
        return self
