# SPDX-License-Identifier: Apache-2.0
"""The evaluations of a run, with what its recipe watches."""

import contextlib
from collections.abc import Iterable

import numpy as np
from mindspore import nn

from ..evaluation.evaluate import Evaluation, evaluate_network
from ..evaluation.pictures import WORST
from ..model_utils.device_adapter import Device
from ..reports.kept import SHOWN
from .build import TrainRecipe
from .precise_bn import batch_norms, reestimate_bn
from .signals import StopRequest
from .train_step import TrainStep


class Evaluator:
    """Evaluates the network of a train step over all ranks: its averaged weights, where an average is kept.

    Attributes:
        monitor: what the recipe watches; None: nothing.

    Args:
        recipe: gives batches and monitor.
        network: of the recipe.
        train_step: made of it; in training mode before and afterwards.
        num_classes: of the data.
        device: this process and its rank.

    Raises:
        UserError: `bn_reestimation_batches` is set, and the network has no batch normalisation.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        network: nn.Cell,
        train_step: TrainStep,
        *,
        num_classes: int,
        device: Device,
    ):
        self.batches = recipe.eval_batches(rank=device.rank, size=device.size)
        self.monitor = recipe.monitor(network, train_step.inputs)
        self._network, self._train_step = network, train_step
        self._num_classes, self._device = num_classes, device
        self._tta, self._tta_share = recipe.config.tta, recipe.config.tta_share
        if recipe.config.bn_reestimation_batches:
            batch_norms(network)

    def evaluate(self, request: StopRequest, *, final: bool) -> Evaluation:
        """One evaluation.

        Args:
            request: is looked at before each batch.
            final: it is the run's last one: with the views that `tta` asks for, and with pictures to show.
                The others take the plain view alone, as several would cost as much as the training.

        Raises:
            EvaluationStopped: a request came to some rank.
        """
        views = {"tta": self._tta, "tta_share": self._tta_share}
        how = {**views, "worst": WORST, "best": SHOWN} if final else {}
        with self._evaluated_weights():
            evaluation = evaluate_network(
                self._train_step.network,
                self._train_step.inputs,
                self.batches,
                num_classes=self._num_classes,
                size=self._device.size,
                between=lambda: request.came,
                **how,
            )
        self._train_step.set_train(True)
        return evaluation

    def measure(self) -> dict[str, float]:
        """The monitor's figures. Rank 0's are written, so it alone takes them."""
        if self.monitor is None or self._device.rank != 0 or not len(self.batches.numbers):
            return {}

        def images() -> np.ndarray:
            batch, _, valid = next(iter(self.batches))
            return batch[:valid]

        self._train_step.set_train(False)
        figures = self.monitor.measure(images)
        self._train_step.set_train(True)
        return figures

    def reestimate_bn(self, batches: Iterable[tuple[np.ndarray, ...]]) -> None:
        """Computes the running statistics of what is evaluated anew, over these training batches."""
        step = self._train_step
        with self._evaluated_weights():
            reestimate_bn(self._network, step.inputs, batches, size=self._device.size)
            if step.ema:
                step.ema.keep_changes()

    def _evaluated_weights(self) -> contextlib.AbstractContextManager:
        """Within it, the network holds what is evaluated: the average, where one is kept."""
        return self._train_step.ema.applied() if self._train_step.ema else contextlib.nullcontext()
