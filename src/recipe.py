# SPDX-License-Identifier: Apache-2.0
"""The seam between engine and model: what a config means, with the defaults of a plain classifier."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn

from .checkpoint.weights import load_weights
from .common.files import checksum
from .data import from_keys
from .data.batches import EvalBatches, TrainBatches
from .data.binary import Split
from .data.decode import admit
from .data.from_keys import Look, Source
from .data.preparation import Preparation
from .layers.build import build_network
from .layers.device import on_cpu
from .layers.losses import CrossEntropy
from .layers.pixels import Pixels
from .optim.groups import (
    ParamGroup,
    ParamRule,
    default_rules,
    frozen_in_stages,
    group_parameters,
    with_own_rates,
)
from .optim.optimizers import Optimizer, create_optimizer
from .optim.schedules import rate_factor, scheduled_rates
from .shared_config import SharedConfig
from .training.monitor import Monitor

log = logging.getLogger("quartet")


class Recipe:
    """A model's subclass says how to build the network, and overrides what else differs.

    Args:
        config: of `config_class`.
        sources: images by split, in place of those of `data_path`.

    Attributes:
        config_class: the shared keys and the model's own.
        network_class: builds the network; the names in its signature are config keys.
    """

    config_class: type[SharedConfig] = SharedConfig
    network_class: Callable[..., nn.Cell]

    def __init__(self, config: SharedConfig, sources: Mapping[Split, Source] | None = None):
        self.config = config
        self._sources = dict(sources or {})
        admit(config.max_image_pixels)

    def changed(self, *, sources: Mapping[Split, Source] | None = None, **keys: Any) -> "Recipe":
        """The recipe with other values of some keys, and the same images or `sources`."""
        other = copy.copy(self)
        other.config = self.config.model_copy(update=keys)
        other._sources = dict(self._sources if sources is None else sources)
        return other

    @property
    def image_size(self) -> int:
        """Side of the images that are evaluated, in pixels."""
        return self.preparation.image_size

    @property
    def side_multiple(self) -> int:
        """The sides of whole pictures (`eval_crop` whole) must be multiples of this, in pixels."""
        return getattr(self.network_class, "side_multiple", 1)

    @property
    def preparation(self) -> Preparation:
        """What evaluation, inference, search and an exported model's card do to a picture."""
        return from_keys.preparation(self.config)

    def settled(self, *, size: int = 1) -> "Recipe":
        """The recipe with the keys filled in that depend on the data and on `size`, the number of cards.

        Asked once, for a new run.
        """
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

    def loss(self, *, rank: int = 0, size: int = 1) -> nn.Cell:
        """A cell (output of the network in training, a batch's targets) -> scalar, for one rank of `size`.

        Parameters of its own are named "loss.*".
        """
        return CrossEntropy()

    def source(self, split: Split) -> Source:
        """The images of a split, opened once; of the training images a few a class, if the config says so."""
        if split not in self._sources:
            self._sources[split] = from_keys.open_source(self.config, split)
        return self._sources[split]

    def looked_at(self, look: Look) -> "Recipe":
        """The recipe with its data open, after a look at all image files: see `from_keys.open_sources`.

        Data that was given is taken as it is.
        """
        if self._sources:
            return self
        return self.changed(sources=from_keys.open_sources(self.config, look))

    def evaluated_on(self, class_names: Sequence[str], *, all_images: bool) -> "Recipe":
        """The recipe with the test images of `data_path`, by the classes of a network.

        Args:
            class_names: of the network, by label; the images may be of some of these classes.
            all_images: of class folders without val or test, all images, and not the share that is held out.
        """
        source = from_keys.open_evaluated(self.config, class_names, all_images=all_images)
        return self.changed(sources={**self._sources, "test": source})

    def train_batches(self, *, rank: int = 0, size: int = 1, **how: Any) -> TrainBatches:
        """The training data of one rank, augmented.

        Args:
            how: `repetitions`, `epoch_length` and `more_targets`, see `from_keys.train_batches`.
        """
        source, shard = self.source("train"), {"rank": rank, "size": size}
        return from_keys.train_batches(self.config, source, host_normalises=on_cpu(), **shard, **how)

    def eval_batches(self, *, rank: int = 0, size: int = 1) -> EvalBatches:
        """One rank's share of the test data."""
        return from_keys.eval_batches(
            self.config,
            self.source("test"),
            self.preparation,
            host_normalises=on_cpu(),
            side_multiple=self.side_multiple,
            rank=rank,
            size=size,
        )

    def param_rules(self) -> list[ParamRule]:
        """Which weight decay and rate each parameter has: biases, normalisation scales, all other weights."""
        return default_rules(self.config, head_prefix=getattr(self.network_class, "head_prefix", ""))

    def param_groups(self, network: nn.Cell, loss: nn.Cell) -> list[ParamGroup]:
        """The trainable parameters of `network` and of `loss`, and how and how long each is trained."""
        trained = [*network.trainable_params(), *loss.trainable_params()]
        groups = group_parameters(trained, self.param_rules())
        return frozen_in_stages(groups, getattr(network, "stages", ()), self.config.freeze_epochs)

    def optimizer(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        *,
        rates: Sequence[float] = (0.0,),
        updates_per_epoch: float = 1.0,
        rank: int = 0,
        size: int = 1,
    ) -> Optimizer:
        """The config's optimizer over `param_groups`, for one rank of `size`.

        Args:
            rates: from `rates`; by default of a run of one update, whose optimizer has the same state.
            updates_per_epoch: need not be whole.
        """
        c, groups = self.config, self.param_groups(network, loss)
        groups = with_own_rates(groups, rates, updates_per_epoch=updates_per_epoch, course=c.freeze_course)
        return create_optimizer(
            c, groups, network=network, updates=len(rates), updates_per_epoch=updates_per_epoch,
            rank=rank, cards=size,
        )  # fmt: skip

    def rates(self, *, updates: int, updates_per_epoch: float, images_per_update: int) -> np.ndarray:
        """The learning rate of each update, shape (updates,).

        A run that is given in batches (`train_steps`) has the same schedule, with epochs of the data set.
        """
        factor = rate_factor(self.config, images_per_update=images_per_update)
        return factor * scheduled_rates(self.config, updates=updates, updates_per_epoch=updates_per_epoch)
