# SPDX-License-Identifier: Apache-2.0
"""MultiGrain's own keys, and its defaults for the shared ones: the paper's ImageNet training."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ..layers.names import STEMS
from ..model_utils.keys import FourCounts, key, refusal
from ..shared_config import SharedConfig


class MultiGrainConfig(SharedConfig):
    """The shared keys, the network's arguments (network.py), the losses' and the sampler's."""

    DEFAULTS: ClassVar = {
        "model": "multigrain_resnet50",
        "image_mean": (123.675, 116.28, 103.53),
        "image_std": (58.395, 57.12, 57.375),
        "image_size": 224,
        "train_crop": "random_resized",
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
    VARIANTS: ClassVar = {
        "multigrain_resnet18": {"block_units": (2, 2, 2, 2), "bottleneck": False},
        "multigrain_resnet34": {"block_units": (3, 4, 6, 3), "bottleneck": False},
        "multigrain_resnet50": {"block_units": (3, 4, 6, 3), "bottleneck": True},
        "multigrain_resnet101": {"block_units": (3, 4, 23, 3), "bottleneck": True},
        "multigrain_resnet152": {"block_units": (3, 8, 36, 3), "bottleneck": True},
    }

    block_units: FourCounts = key(
        (3, 4, 6, 3), "blocks in each of the four stages; by default those of the model", unit="blocks"
    )
    bottleneck: bool = key(
        True,
        "blocks of three convolutions, 1x1, 3x3 and 1x1, in place of two 3x3; by default that of the model",
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
    pooling_exponent: float | Literal["max"] = key(
        3.0, "exponent p of the pooling (GeM, a generalised mean); 1: the mean; max: the maximum"
    )
    learn_pooling_exponent: bool = key(False, "train the exponent p, starting from pooling_exponent")
    eval_pooling_exponent: float | Literal["max"] = key(
        0.0, "exponent in evaluation, the p* of a test resolution; 0: that of training"
    )
    whitening_dim: int = key(
        0,
        "length of whitened embeddings; set by python -m src.multigrain.whiten; 0: no whitening",
        unit="dimensions",
        ge=0,
    )
    classification_weight: float = key(
        0.5, "lambda: share of cross-entropy in the loss; the rest is metric_loss", unit="0..1", ge=0, le=1
    )
    metric_loss: Literal["margin", "triplet"] = key(
        "margin",
        "loss of the embeddings; margin: with negatives drawn by distance; triplet: with the hardest "
        "negatives",
    )
    margin: float = key(0.2, "margin loss: half the width of the band around beta", unit="distance", gt=0)
    margin_beta: float = key(
        1.2,
        "margin loss: first value of beta, the boundary between near and far",
        unit="distance",
        gt=0,
        lt=2,
    )
    beta_lr_multiplier: float = key(
        1.0, "learning rate of beta as a factor on lr; 0: beta stays", unit="factor", ge=0
    )
    triplet_margin: float = key(0.1, "triplet loss: margin", unit="squared distance", gt=0)
    sampling_cutoff: float = key(
        0.5,
        "negatives nearer than this are drawn as often as those at this distance",
        unit="distance",
        gt=0,
        lt=2,
    )
    nonzero_loss_cutoff: float = key(
        1.4, "negatives at this distance or farther are not drawn", unit="distance", gt=0, le=2
    )
    negatives: Literal["global", "card"] = key(
        "global", "which embeddings make pairs; global: those of all cards; card: those of one card"
    )
    repetitions: int = key(3, "repeated augmentation: copies of each image in a batch", unit="images", ge=1)
    epoch_length: float = key(2.0, "images in an epoch, as a multiple of the data set's", unit="factor", gt=0)
    knn_probe_images: int = key(
        0, "images whose nearest neighbours are looked at in each evaluation; 0: none", unit="images", ge=0
    )

    @model_validator(mode="after")
    def _is_a_network(self) -> "MultiGrainConfig":
        p, eval_p = self.pooling_exponent, self.eval_pooling_exponent
        if p != "max" and p <= 0:
            raise refusal("pooling_exponent", p, "above 0, or max")
        if eval_p != "max" and eval_p < 0:
            raise refusal("eval_pooling_exponent", eval_p, "0, above, or max")
        if self.learn_pooling_exponent and p == "max":
            raise refusal("pooling_exponent", p, "a number while learn_pooling_exponent")
        dimensions = (4 if self.bottleneck else 1) * self.widths[-1] + 1
        if self.whitening_dim > dimensions:
            raise refusal(
                "whitening_dim", self.whitening_dim, f"up to {dimensions}: this network's embedding, and one"
            )
        return self

    @model_validator(mode="after")
    def _pairs_are_of_one_image(self) -> "MultiGrainConfig":
        if not self.has_pairs:
            return self
        only = "with classification_weight below 1"
        if self.repetitions == 1:
            allowed = f"2 or more {only}: the metric loss pulls repetitions of an image together"
            raise refusal("repetitions", 1, allowed)
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name):
                raise refusal(name, getattr(self, name), f"0 {only}: a mixture of images is no instance")
        return self

    @property
    def has_pairs(self) -> bool:
        """Whether the loss is of embeddings too, and not of logits alone."""
        return self.classification_weight < 1
