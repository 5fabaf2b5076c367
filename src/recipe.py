"""The seam between engine and model: what a config means, with the defaults of a plain classifier."""

import inspect
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from .checkpoint.weights import load_weights
from .common.errors import UserError
from .common.files import checksum
from .data.autoaugment import autoaugment
from .data.batches import ShardBatches, ShuffledBatches
from .data.cifar10 import ImageSet, Split
from .data.colour import ColourChange
from .data.erasing import Erasing
from .data.few_shot import few_shot
from .data.keys import Channels
from .data.loader import EvalBatches, TrainBatches
from .data.mindrecord import MindRecordImages
from .data.picture_batches import PictureBatches, PictureEvalBatches
from .data.randaugment import RandAugment
from .data.sources import ImageFiles, open_split
from .data.whole_batches import WholePictureBatches
from .layers.losses import CrossEntropy
from .layers.pixels import Pixels
from .optim.groups import ParamRule, group_parameters
from .optim.optimizers import Optimizer, create_optimizer
from .optim.schedules import scheduled_rates
from .shared_config import SharedConfig
from .training.monitor import Monitor

log = logging.getLogger("quartet")


def network_keys(network_class: Callable[..., nn.Cell]) -> list[str]:
    """The config keys that a network is built from: the names in its signature but for `num_classes`."""
    return [name for name in inspect.signature(network_class).parameters if name != "num_classes"]


def build_network(
    network_class: Callable[..., nn.Cell], config: SharedConfig, *, num_classes: int
) -> nn.Cell:
    """A network with initial weights, each argument of its signature from the config key of that name."""
    arguments = {name: getattr(config, name) for name in network_keys(network_class)}
    return network_class(num_classes=num_classes, **arguments)


class Recipe:
    """A model's subclass says how to build the network, and overrides what else differs.

    Attributes:
        config_class: the shared keys and the model's own.
        network_class: builds the network; the names in its signature are config keys.
        side_multiple: what the sides of a whole picture are divisible by (`eval_crop` whole): what the
            network's windows want, that tile its maps.
    """

    config_class: type[SharedConfig] = SharedConfig
    network_class: Callable[..., nn.Cell]
    side_multiple = 1

    def __init__(self, config: SharedConfig):
        self.config = config
        self._sources: dict[Split, ImageSet | ImageFiles | MindRecordImages] = {}

    @property
    def image_size(self) -> int:
        """Side of the images that are evaluated, in pixels."""
        return self.config.eval_image_size or self.config.image_size

    @property
    def resizing(self) -> dict[str, Any]:
        """How evaluation resizes an image of another size, by the keys of the model card.

        With `eval_crop` whole it is `centre`: an exported model takes squares.
        """
        c = self.config
        if c.train_crop == "pad":
            return {"crop": "centre", "interpolation": "antialias"}
        return {
            "crop": "centre" if c.eval_crop == "whole" else c.eval_crop,
            "interpolation": c.interpolation,
            "crop_percentage": c.crop_percentage,
        }

    def settled(self) -> "Recipe":
        """The recipe with the keys filled in that depend on the data; asked once, for a new run."""
        return self

    def network(self, *, num_classes: int) -> nn.Cell:
        """The network, NCHW float32 -> logits (N, num_classes), with initial weights from the seed."""
        return build_network(self.network_class, self.config, num_classes=num_classes)

    def load_pretrained(self, network: nn.Cell) -> None:
        """Fills a new network with the weights of `pretrained_path`, if there is one.

        Raises:
            UserError: there is no such file, or it does not fit.
        """
        c = self.config
        if c.pretrained_path:
            path = self.pretrained_file()
            load_weights(network, path, head=c.pretrained_head)
            log.info("starting from %s, sha256 %s, classifier: %s", path, checksum(path), c.pretrained_head)

    def pretrained_file(self) -> Path:
        """The file that `pretrained_path` means."""
        return Path(self.config.pretrained_path)

    def inputs(self) -> nn.Cell:
        """A cell from a batch's images to the network's input: uint8 pictures are normalised and mixed."""
        return Pixels(self.config.image_mean, self.config.image_std)

    def monitor(self, network: nn.Cell, inputs: nn.Cell) -> Monitor | None:
        """What is watched of the network in training, built before its first step; None: nothing.

        Args:
            network: from `network`, with the weights that training starts from.
            inputs: from `inputs`.
        """
        return None

    @property
    def _host_normalises(self) -> tuple[Channels, Channels] | None:
        """Mean and deviation, where the device is the CPU: a card takes bytes, a quarter of the transfer."""
        on_cpu = ms.get_context("device_target") == "CPU"
        return (self.config.image_mean, self.config.image_std) if on_cpu else None

    def loss(self) -> nn.Cell:
        """A cell (what the network puts out in training, a batch's targets) -> scalar.

        Parameters of its own are named "loss.*".
        """
        return CrossEntropy()

    def source(self, split: Split) -> ImageSet | ImageFiles | MindRecordImages:
        """The images of a split; of the training images a few a class, if the config says so."""
        if split not in self._sources:
            c = self.config
            images = open_split(
                c.data_path,
                split,
                dataset=c.dataset,
                val_fraction=c.val_fraction,
                seed=c.subset_seed,
                damaged=c.damaged_images,
            )
            if split == "train" and c.examples_per_class:
                images = images.take(
                    few_shot(
                        images.labels, c.examples_per_class, c.subset_seed, class_names=images.class_names
                    )
                )
            if not isinstance(images, ImageSet) and c.train_crop == "pad":
                raise UserError(
                    f"train_crop: pad is for sets of 32x32 images, and {c.data_path} holds image files; "
                    "use train_crop random_resized or resize, with an image_size"
                )
            self._sources[split] = images
        return self._sources[split]

    def train_batches(self, *, rank: int = 0, size: int = 1, **order: Any) -> ShuffledBatches:
        """The training data of one rank, augmented.

        Args:
            order: `repetitions`, `epoch_length` and `instances` of `ShuffledBatches`.
        """
        c = self.config
        policy = autoaugment if c.autoaugment == "imagenet" else None
        if c.randaugment_layers:
            policy = RandAugment(
                layers=c.randaugment_layers, magnitude=c.randaugment_magnitude, std=c.randaugment_std
            )
        shared = {
            "batch_size": c.batch_size,
            "seed": c.seed,
            "flip": c.flip,
            "policy": policy,
            "mixup_alpha": c.mixup_alpha,
            "cutmix_alpha": c.cutmix_alpha,
            "mixup_per_image": c.mixup_per_image,
            "label_smoothing": c.label_smoothing,
            "soft_labels": c.soft_labels,
            "rank": rank,
            "size": size,
            **order,
        }
        if c.train_crop == "pad":
            return TrainBatches(
                self.source("train"),
                mean=c.image_mean,
                std=c.image_std,
                crop_pad=c.crop_pad,
                cutout=c.cutout,
                translate=c.translate,
                **shared,
            )
        erasing = None
        if c.random_erasing:
            erasing = Erasing(
                probability=c.random_erasing,
                noise=c.erasing_fill == "noise",
                mean=c.image_mean,
                std=c.image_std,
            )
        recolours = any(c.colour_jitter) or c.lighting
        return PictureBatches(
            self.source("train"),
            image_size=c.image_size,
            train_crop=c.train_crop,
            resize_size=c.resize_size or c.image_size,
            crop_area=c.crop_area,
            crop_ratio=c.crop_ratio,
            interpolation=c.interpolation,
            colour=ColourChange(jitter=c.colour_jitter, lighting=c.lighting) if recolours else None,
            erasing=erasing,
            normalise=self._host_normalises,
            **shared,
        )

    def eval_batches(self, *, rank: int = 0, size: int = 1) -> ShardBatches:
        """One rank's share of the test data."""
        c = self.config
        shared = {"batch_size": c.eval_batch_size, "rank": rank, "size": size}
        if c.train_crop == "pad":
            return EvalBatches(self.source("test"), mean=c.image_mean, std=c.image_std, **shared)
        shared |= {
            "image_size": self.image_size,
            "interpolation": c.interpolation,
            "normalise": self._host_normalises,
        }
        if c.eval_crop == "whole":
            return WholePictureBatches(self.source("test"), side_multiple=self.side_multiple, **shared)
        return PictureEvalBatches(
            self.source("test"), eval_crop=c.eval_crop, crop_percentage=c.crop_percentage, **shared
        )

    def param_rules(self) -> list[ParamRule]:
        """Biases, normalisation scales, and all other weights."""
        c = self.config
        small = c.weight_decay if c.decay_norm_and_bias else 0.0
        factor = c.bias_lr_multiplier
        return [
            ParamRule("biases", r"(^|\.)(beta|bias)$", small / factor, factor),
            ParamRule("scales", r"(^|\.)gamma$", small),
            ParamRule("weights", r".*", c.weight_decay),
        ]

    def optimizer(self, network: nn.Cell, loss: nn.Cell | None = None) -> Optimizer:
        """The config's optimizer over the grouped trainable parameters of the network and of its loss.

        Args:
            network: from `network`.
            loss: from `loss`; None makes a new one.
        """
        c = self.config
        loss = loss or self.loss()
        return create_optimizer(
            c.optimizer,
            group_parameters([*network.trainable_params(), *loss.trainable_params()], self.param_rules()),
            momentum=c.momentum,
            nesterov=c.nesterov,
            lr_in_velocity=c.lr_in_velocity,
            beta1=c.beta1,
            beta2=c.beta2,
            eps=c.optimizer_eps,
            rmsprop_decay=c.rmsprop_decay,
        )

    def rates(self, *, updates: int, updates_per_epoch: float, images_per_update: int) -> np.ndarray:
        """The learning rate of each update, shape (updates,).

        A run that is given in batches (`train_steps`) has the same schedule, with epochs of the data set.
        """
        c = self.config
        return self._scale(images_per_update) * scheduled_rates(
            c, updates=updates, updates_per_epoch=updates_per_epoch
        )

    def _scale(self, images_per_update: int) -> float:
        c = self.config
        ratio = images_per_update / c.lr_base_batch
        if c.lr_scale_rule == "none":
            if ratio != 1:
                log.warning(
                    "an update sees %d images, not lr_base_batch %d, and the rates stay as they are "
                    "(lr_scale_rule none); linear or sqrt would multiply them by %.3g or %.3g",
                    images_per_update, c.lr_base_batch, ratio, math.sqrt(ratio),
                )  # fmt: skip
            return 1.0
        return ratio if c.lr_scale_rule == "linear" else math.sqrt(ratio)
