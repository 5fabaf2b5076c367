# SPDX-License-Identifier: Apache-2.0
"""From a recipe to a train step."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from mindspore import nn

from ..layers.norm import synchronise_batch_norm
from ..model_utils.keys import Keys
from ..optim.groups import ParamGroup
from ..optim.optimizers import Optimizer
from .ema import EMA
from .loss_scale import LossScale
from .monitor import Monitor
from .precision import set_precision
from .train_step import TrainStep


class TrainRecipe(Protocol):
    """What training asks of a recipe; src/recipe.py says what each part means."""

    config: Keys
    image_size: int

    def changed(self, *, sources: Mapping | None = None, **keys: Any) -> "TrainRecipe": ...
    def source(self, split: str): ...
    def looked_at(self, look: Callable) -> "TrainRecipe": ...
    def settled(self, *, size: int) -> "TrainRecipe": ...
    def network(self, *, num_classes: int) -> nn.Cell: ...
    def load_pretrained(self, network: nn.Cell) -> None: ...
    def inputs(self) -> nn.Cell: ...
    def loss(self, *, rank: int, size: int) -> nn.Cell: ...
    def param_groups(self, network: nn.Cell, loss: nn.Cell) -> list[ParamGroup]: ...
    def optimizer(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        *,
        rates: np.ndarray,
        updates_per_epoch: float,
        rank: int,
        size: int,
    ) -> Optimizer: ...
    def rates(self, *, updates: int, updates_per_epoch: float, images_per_update: int) -> np.ndarray: ...
    def monitor(self, network: nn.Cell, inputs: nn.Cell) -> Monitor | None: ...
    def train_batches(self, *, rank: int, size: int): ...
    def eval_batches(self, *, rank: int, size: int): ...


def build_train_step(
    recipe: TrainRecipe, network: nn.Cell, *, steps: int, steps_per_epoch: int, cards: int, rank: int = 0
) -> TrainStep:
    """The train step that the recipe's config describes, in training mode.

    Args:
        network: from the recipe, with float32 parameters.
        steps: batches of the whole run.
        steps_per_epoch: batches of an epoch.
        cards: number of cards that train together.
        rank: which of them this one is.
    """
    c = recipe.config
    # The last, incomplete group of accumulated batches makes no update.
    updates = max(1, steps // c.accumulate_steps)
    updates_per_epoch = steps_per_epoch / c.accumulate_steps
    rates = recipe.rates(
        updates=updates,
        updates_per_epoch=updates_per_epoch,
        images_per_update=c.batch_size * c.accumulate_steps * cards,
    )
    loss = recipe.loss(rank=rank, size=cards)
    optimizer = recipe.optimizer(
        network, loss, rates=rates, updates_per_epoch=updates_per_epoch, rank=rank, size=cards
    )
    if c.sync_bn:
        synchronise_batch_norm(network, cards=cards)
    ema = None
    if c.ema_decay:
        ema = EMA(network, decay=c.ema_decay, warmup=c.ema_warmup, every=c.ema_every, lookahead=c.lookahead)
    step = TrainStep(
        set_precision(network, c.amp_level),
        recipe.inputs(),
        loss,
        optimizer,
        rates=rates,
        loss_scale=LossScale(
            c.loss_scale, value=c.loss_scale_value, factor=c.loss_scale_factor, window=c.loss_scale_window
        ),
        accumulate_steps=c.accumulate_steps,
        clip_norm=c.clip_norm,
        ema=ema,
        cards=cards,
        bucket_bytes=int(c.bucket_mib * 2**20),
    )
    step.set_train(True)
    return step
