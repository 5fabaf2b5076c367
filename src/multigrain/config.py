"""MultiGrain's own keys, and its defaults for the shared ones: the paper's ImageNet training."""

import math
from typing import ClassVar, Literal

from pydantic import model_validator

from ..model_utils.keys import Counts, key
from ..shared_config import SharedConfig
from .network import VARIANTS, WIDTHS


class MultiGrainConfig(SharedConfig):
    """The shared keys, the network's arguments (network.py), the losses' and the sampler's."""

    DEFAULTS: ClassVar = {
        "model": "multigrain_resnet50",
        "image_mean": (123.675, 116.28, 103.53),
        "image_std": (58.395, 57.12, 57.375),
        "image_size": 224,
        "train_crop": "random_resized",
        "eval_crop": "centre",
        "crop_percentage": 0.875,
        "colour_jitter": (0.3, 0.3, 0.3, 0.0),
        "lighting": 0.1,
        "eval_batch_size": 100,
        "epochs": 120.0,
        "lr": 0.2,
        "lr_schedule": "multi_step",
        "lr_milestones": (30.0, 60.0, 90.0),
        "lr_scale_rule": "linear",
        "warmup_epochs": 0.0,
        "nesterov": False,
        "weight_decay": 1e-4,
    }

    block_units: Counts = key((), "blocks of each of the four stages; []: those of the model", unit="blocks")
    widths: Counts = key(
        WIDTHS, "channels of the four stages; bottlenecks put out 4 times as many", unit="channels"
    )
    stem: Literal["imagenet", "small"] = key(
        "imagenet", "7x7 convolution and max-pool, both stride 2; small: 3x3 convolution, stride 2"
    )
    pooling_exponent: float | Literal["max"] = key(
        3.0, "p of the generalised mean that pools; 1: the mean; max: the maximum"
    )
    learn_pooling_exponent: bool = key(False, "train p, from pooling_exponent on")
    eval_pooling_exponent: float | Literal["max"] = key(
        0.0, "p in evaluation, p* of a test resolution; 0: that of training"
    )
    whitening_dim: int = key(
        0, "length of whitened embeddings, set by src.tools.whiten; 0: not whitened", unit="dimensions", ge=0
    )
    classification_weight: float = key(
        0.5, "lambda: share of cross-entropy in the loss; the rest is metric_loss", unit="0..1", ge=0, le=1
    )
    metric_loss: Literal["margin", "triplet"] = key(
        "margin", "of embeddings: margin, with distance-weighted negatives, or triplet, with the hardest ones"
    )
    margin: float = key(0.2, "margin loss: half the band about beta", unit="distance", gt=0)
    margin_beta: float = key(1.2, "margin loss: first boundary of near and far", unit="distance", gt=0, lt=2)
    beta_lr_multiplier: float = key(1.0, "rate of beta in parts of lr; 0: it stays", unit="factor", ge=0)
    triplet_margin: float = key(0.1, "triplet loss: margin", unit="squared distance", gt=0)
    sampling_cutoff: float = key(
        0.5, "negatives nearer than this are drawn as if this far", unit="distance", gt=0, lt=2
    )
    nonzero_loss_cutoff: float = key(
        1.4, "negatives this far or farther are not drawn", unit="distance", gt=0, le=2
    )
    negatives: Literal["global", "card"] = key(
        "global", "pairs are those of all cards' embeddings, or of each card's alone"
    )
    repetitions: int = key(
        3, "N of repeated augmentation: copies of an image in a batch", unit="images", ge=1
    )
    epoch_length: float = key(2.0, "images of an epoch, in parts of the data set", unit="factor", gt=0)
    knn_probe_images: int = key(
        0, "queries of the nearest-neighbour probe at each evaluation; 0: none", unit="images", ge=0
    )

    @model_validator(mode="after")
    def _is_a_network(self) -> "MultiGrainConfig":
        if len(self.block_units) not in (0, 4):
            raise ValueError(
                f"block_units: {list(self.block_units)} given, allowed: a list of 4 whole numbers > 0, or []"
            )
        if len(self.widths) != 4:
            raise ValueError(f"widths: {list(self.widths)} given, allowed: a list of 4 whole numbers > 0")
        if self.pooling_exponent != "max" and self.pooling_exponent <= 0:
            raise ValueError(f"pooling_exponent: {self.pooling_exponent} given, allowed: above 0, or max")
        if self.eval_pooling_exponent != "max" and self.eval_pooling_exponent < 0:
            raise ValueError(
                f"eval_pooling_exponent: {self.eval_pooling_exponent} given, allowed: 0, above, or max"
            )
        if self.learn_pooling_exponent and self.pooling_exponent == "max":
            raise ValueError("pooling_exponent: 'max' given, allowed: a number while learn_pooling_exponent")
        return self

    @model_validator(mode="after")
    def _has_pairs(self) -> "MultiGrainConfig":
        if self.classification_weight == 1:
            return self
        if self.repetitions == 1:
            raise ValueError(
                "repetitions: 1 given, allowed: 2 or more with classification_weight below 1: the metric "
                "loss pulls repetitions of an image together"
            )
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: {getattr(self, name)} given, allowed: 0 with classification_weight below 1: a "
                    "mixture of images is no instance"
                )
        return self

    @property
    def structure(self) -> tuple[tuple[int, ...], bool]:
        """Blocks of each stage, the config's own or those of the model's name; and whether bottlenecks."""
        units, bottleneck = VARIANTS[self.model]
        return self.block_units or units, bottleneck

    @property
    def exponents(self) -> tuple[float, float]:
        """p in training, and in evaluation, where 0 is the same."""
        given = (self.pooling_exponent, self.eval_pooling_exponent)
        return tuple(math.inf if p == "max" else p for p in given)
