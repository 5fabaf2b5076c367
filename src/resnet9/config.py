# SPDX-License-Identifier: Apache-2.0
"""The keys that the CIFAR networks share, and each one's own."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import ACTIVATIONS, INPUT_WHITENING, NORM_SCALES
from ..model_utils.keys import FiveCounts, FourCounts, ThreeCounts, default_of, key, refusal
from ..shared_config import SharedConfig


class CifarConfig(SharedConfig):
    """The shared keys, and those of the CIFAR networks.

    Attributes:
        LEAST: pixels a side that the network needs behind the whitening, so that pooling leaves one.
    """

    LEAST: ClassVar = 1

    activation: Literal[ACTIVATIONS] = key(
        "relu",
        "activation function; cifar10-fast uses celu, airbench gelu, Hiverge silu (on a CPU a fifth of "
        "gelu's time)",
    )
    celu_alpha: float = key(
        0.075,
        "activation celu: alpha; its least value is -alpha; cifar10-fast uses 0.075, with norm_scale "
        "fixed 0.3",
        gt=0,
    )
    head_scale: float = key(
        1.0,
        "factor on the logits; cifar10-fast uses 1/8, with whitening 1/16, airbench94 1/9",
        unit="factor",
        gt=0,
    )
    norm_momentum: float = key(
        0.1,
        "weight of a new batch in the running statistics of batch normalisation; airbench uses 0.4",
        unit="0..1",
        gt=0,
        le=1,
    )
    norm_eps: float = key(
        1e-5,
        "number that batch normalisation adds to the variance; airbench uses 1e-12",
        unit="variance",
        gt=0,
        le=1,
    )
    norm_scale: Literal[NORM_SCALES] = key(
        "trained",
        "scale of batch normalisation; fixed: 1, and only the offset is trained (cifar10-fast, airbench)",
    )
    ghost_batch: int = key(
        0,
        "ghost batch normalisation: a training batch is normalised in groups of this many images; 0: as a "
        "whole; cifar10-fast uses 32",
        unit="images",
        ge=0,
    )
    input_whitening: Literal[INPUT_WHITENING] = key(
        "none",
        "fixed first convolution that decorrelates patches of the training images; dawnbench: 3x3, "
        "followed by a 1x1 convolution (cifar10-fast); airbench: 2x2, with both signs and a trained bias",
    )
    whitening_eps: float = key(
        0.0,
        "input_whitening: number that is added to the eigenvalues; 0: 1e-2 for dawnbench, 5e-4 for airbench",
        unit="variance",
        ge=0,
    )
    whitening_images: int = key(
        0,
        "input_whitening: training images that it is computed from; 0: 10000 for dawnbench, 5000 for "
        "airbench; Hiverge uses 960",
        unit="images",
        ge=0,
    )
    whitening_bias_epochs: float = key(
        0.0,
        "input_whitening airbench: how long its bias is trained, at the rate lr and as freeze_course "
        "says; 0: the whole run; airbench uses 3",
        unit="epochs",
        ge=0,
    )
    dirac_init: bool = key(
        False,
        "initial weights of all convolutions but the first copy their input: the first filters are the "
        "identity (airbench)",
    )

    @model_validator(mode="after")
    def _celu_is_the_activation(self) -> "CifarConfig":
        default = default_of(type(self), "celu_alpha")
        if self.activation != "celu" and self.celu_alpha != default:
            raise refusal("celu_alpha", self.celu_alpha, f"{default} without activation celu")
        return self

    @model_validator(mode="after")
    def _whitening_fits(self) -> "CifarConfig":
        for name in ("whitening_eps", "whitening_images"):
            if getattr(self, name) and self.input_whitening == "none":
                raise refusal(name, getattr(self, name), "0 with input_whitening none")
        if self.whitening_bias_epochs and self.input_whitening != "airbench":
            raise refusal(
                "whitening_bias_epochs",
                self.whitening_bias_epochs,
                f"0 with input_whitening {self.input_whitening}",
            )
        if self.whitening_bias_epochs and self.optimizer == "thor":
            allowed = "0 with optimizer thor, which trains all layers to the end"
            raise refusal("whitening_bias_epochs", self.whitening_bias_epochs, allowed)
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> "CifarConfig":
        if self.ghost_batch == 1 or (self.ghost_batch and self.batch_size % self.ghost_batch):
            allowed = f"0, or a divisor of batch_size ({self.batch_size}) above 1"
            raise refusal("ghost_batch", self.ghost_batch, allowed)
        if self.ghost_batch and self.sync_bn:
            raise refusal("sync_bn", True, "false with a ghost_batch")
        return self

    @model_validator(mode="after")
    def _leaves_a_pixel(self) -> "CifarConfig":
        least = self.LEAST + (self.input_whitening == "airbench")  # which takes a pixel off
        for name in ("image_size", "eval_image_size"):
            size = getattr(self, name)
            if size < least and (name, size) != ("eval_image_size", 0):
                raise refusal(name, size, f"at least {least}: of less the pooling leaves no pixel")
        return self


class PooledConfig(CifarConfig):
    """The keys of the CIFAR networks that may pool at either of two places."""

    pool_before_norm: bool = key(
        False, "pool right after the convolution, before batch normalisation (cifar10-fast, airbench)"
    )


class ResNet9Config(PooledConfig):
    """The keys of the CIFAR networks, and ResNet9's widths (network.py)."""

    DEFAULTS: ClassVar = {"model": "resnet9", "interpolation": "bicubic", "head_scale": 0.125}
    VARIANTS: ClassVar = {"resnet9": {}}
    LEAST: ClassVar = 8

    widths: FourCounts = key((64, 128, 256, 512), "channels of prep, layer1, layer2, layer3", unit="channels")


class CifarNetConfig(CifarConfig):
    """The keys of the CIFAR networks with airbench94's values, and that network's own (cifarnet.py)."""

    DEFAULTS: ClassVar = {
        "model": "cifarnet",
        "interpolation": "bicubic",
        "activation": "gelu",
        "norm_momentum": 0.4,
        "norm_eps": 1e-12,
        "norm_scale": "fixed",
        "input_whitening": "airbench",
        "dirac_init": True,
        "head_scale": 1 / 9,
    }
    VARIANTS: ClassVar = {"cifarnet": {}}
    LEAST: ClassVar = 8

    widths: ThreeCounts = key(
        (64, 256, 256),
        "channels of the three groups (airbench95: 128, 384, 384; airbench96: 128, 384, 512)",
        unit="channels",
    )
    group_convs: int = key(
        2,
        "convolutions in a group; 3: with a residual connection around the last two (airbench96)",
        unit="layers",
        ge=2,
        le=3,
    )
    unit_head: bool = key(
        False,
        "initial weights of the classifier have a standard deviation of 1 (airbench94_muon, where "
        "head_scale is 1 / 256); false: PyTorch's default",
    )
    skip_unpooled: bool = key(
        False,
        "do not compute the pixels of a convolution that the pooling after it drops: the same network, "
        "with 11 % less compute at 32 pixels",
    )

    @model_validator(mode="after")
    def _pooling_drops_pixels(self) -> "CifarNetConfig":
        if self.skip_unpooled and self.input_whitening != "airbench":
            raise refusal(
                "skip_unpooled", True, "false without input_whitening airbench: sides are even then"
            )
        return self


class ResNetConfig(CifarConfig):
    """The keys of the CIFAR networks, and those of the 6n + 2 ResNets (resnet.py)."""

    DEFAULTS: ClassVar = {"model": "resnet56", "interpolation": "bicubic"}
    VARIANTS: ClassVar = {f"resnet{6 * n + 2}": {"stage_blocks": n} for n in (3, 5, 7, 9, 18)}

    stage_blocks: int = key(
        9, "blocks in each of the three stages: n of 6n + 2 layers; by default that of the model",
        unit="blocks",
        ge=1,
    )  # fmt: skip
    width_factor: float = key(1.0, "factor on all channels (16, 32, 64)", unit="factor", gt=0)


class VGGConfig(PooledConfig):
    """The keys of the CIFAR networks, and those of the VGGs (vgg.py)."""

    DEFAULTS: ClassVar = {"model": "vgg16", "interpolation": "bicubic"}
    VARIANTS: ClassVar = {
        "vgg11": {"stage_convs": (1, 1, 2, 2, 2)},
        "vgg13": {"stage_convs": (2, 2, 2, 2, 2)},
        "vgg16": {"stage_convs": (2, 2, 3, 3, 3)},
        "vgg19": {"stage_convs": (2, 2, 4, 4, 4)},
    }
    LEAST: ClassVar = 32

    stage_convs: FiveCounts = key(
        (2, 2, 3, 3, 3), "convolutions in each of the five stages; by default those of the model",
        unit="layers",
    )  # fmt: skip
    width_factor: float = key(1.0, "factor on all channels (64, 128, 256, 512, 512)", unit="factor", gt=0)
