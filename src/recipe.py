"""The seam between engine and model: what a config means, with the defaults of a plain classifier."""

import logging
import math
from collections.abc import Callable

import numpy as np
from mindspore import nn

from src.data.cifar10 import read_cifar10
from src.data.loader import EvalBatches, TrainBatches
from src.losses import CrossEntropy
from src.model_utils.errors import UserError
from src.model_utils.shared_config import WITH_WARMUP, SharedConfig
from src.optim import schedules
from src.optim.groups import ParamRule, group_parameters
from src.optim.optimizers import Optimizer, create_optimizer

log = logging.getLogger("quartet")


class Recipe:
    """A model's subclass says how to build the network, and overrides what else differs.

    Attributes:
        config_class: the shared keys and the model's own.
        image_size: side of the images that the network takes, in pixels.
    """

    config_class: type[SharedConfig] = SharedConfig
    image_size = 32

    def __init__(self, config: SharedConfig):
        self.config = config

    def network(self, *, num_classes: int) -> nn.Cell:
        """The network, NCHW float32 -> logits (N, num_classes), with initial weights from the seed."""
        raise NotImplementedError("a model's recipe builds its network")

    def loss(self) -> nn.Cell:
        """A cell (logits, targets) -> scalar."""
        return CrossEntropy()

    def train_batches(self, *, rank: int = 0, size: int = 1) -> TrainBatches:
        """The training data of one rank, augmented."""
        c = self.config
        return TrainBatches(
            read_cifar10(c.data_path, "train"),
            batch_size=c.batch_size,
            seed=c.seed,
            mean=c.image_mean,
            std=c.image_std,
            crop_pad=c.crop_pad,
            flip=c.flip,
            cutout=c.cutout,
            translate=c.translate,
            mixup_alpha=c.mixup_alpha,
            label_smoothing=c.label_smoothing,
            soft_labels=c.soft_labels,
            rank=rank,
            size=size,
        )

    def eval_batches(self, *, rank: int = 0, size: int = 1) -> EvalBatches:
        """One rank's share of the test data."""
        c = self.config
        return EvalBatches(
            read_cifar10(c.data_path, "test"),
            batch_size=c.eval_batch_size,
            mean=c.image_mean,
            std=c.image_std,
            rank=rank,
            size=size,
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

    def optimizer(self, network: nn.Cell) -> Optimizer:
        """The config's optimizer over the grouped trainable parameters."""
        c = self.config
        return create_optimizer(
            c.optimizer,
            group_parameters(network.trainable_params(), self.param_rules()),
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
        return self._scale(images_per_update) * _schedule(
            c, updates, lambda epochs: epochs * updates_per_epoch
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


def _schedule(c: SharedConfig, updates: int, steps_in: Callable[[float], float]) -> np.ndarray:
    """The config's schedule over that many updates; `steps_in` turns epochs into updates."""
    warmup = round(steps_in(c.warmup_epochs))
    if warmup > updates + 1 and c.lr_schedule in WITH_WARMUP:
        raise UserError(
            f"warmup_epochs: {c.warmup_epochs:g} given, {warmup} updates, allowed: up to the run's {updates}"
        )
    warmup = min(warmup, updates)  # rounding, where updates and epochs do not meet
    every = max(1, round(steps_in(c.lr_every)))
    rise = {"lr": c.lr, "warmup_steps": warmup, "lr_start": c.lr_start}
    build = {
        "constant": lambda: schedules.constant(updates, lr=c.lr),
        "one_cycle": lambda: schedules.one_cycle(updates, lr_end=c.lr_end, **rise),
        "piecewise": lambda: schedules.piecewise_linear(
            updates, knots=[steps_in(epoch) for epoch in c.lr_epochs], values=c.lr_values
        ),
        "step": lambda: schedules.step(updates, lr=c.lr, every=every, gamma=c.lr_gamma),
        "multi_step": lambda: schedules.multi_step(
            updates,
            lr=c.lr,
            milestones=[round(steps_in(epoch)) for epoch in c.lr_milestones],
            gamma=c.lr_gamma,
        ),
        "halving": lambda: schedules.halving(updates, lr=c.lr, every=every),
        "exponential": lambda: schedules.exponential(updates, every=every, gamma=c.lr_gamma, **rise),
        "polynomial": lambda: schedules.polynomial(updates, lr_end=c.lr_end, power=c.lr_power, **rise),
        "linear": lambda: schedules.linear(updates, lr_end=c.lr_end, **rise),
        "cosine": lambda: schedules.cosine(updates, lr_end=c.lr_end, **rise),
    }
    try:
        if c.lr_schedule in build:
            return build[c.lr_schedule]()
        return schedules.cyclic(
            updates, lr_min=c.lr_start, lr_max=c.lr, half_cycle=every, mode=c.lr_schedule, gamma=c.lr_gamma
        )
    except ValueError as error:
        raise UserError(f"lr_schedule {c.lr_schedule} over {updates} updates: {error}") from error
