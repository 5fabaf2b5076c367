# SPDX-License-Identifier: Apache-2.0
"""Whether a 1-bit network learns: which weights change sign, and which activations have no slope."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn

from ..layers.binary import ApproxSign, BinaryConv2d, SteSign, UnitDeviation
from ..model_utils.device_adapter import without_graph


class BinaryMonitor:
    """`bit_flips` and `saturated_activations` of a network with signs (the protocol: training/monitor.py).

    - bit_flips: share of the 1-bit weights whose sign has changed since the last measurement (with
      `eval_every` 1: in an epoch). Near 0 long before the end, the network has stopped learning. High at
      the end, the learning rate is too high.
    - saturated_activations: share of the signs' inputs with a magnitude of 1 or more. The slope is 0 there,
      so nothing is learnt.

    Args:
        network: with weights of one bit, or signs as activations, or both.
        inputs: a cell from a batch's images to what the network takes.
    """

    def __init__(self, network: nn.Cell, inputs: nn.Cell):
        self.network, self.inputs = network, inputs
        cells = [cell for _, cell in network.cells_and_names()]
        self.weights = [c.weight for c in cells if isinstance(c, BinaryConv2d) and c.weight_bits == 1]
        self.activations = [cell for cell in cells if isinstance(cell, ApproxSign | SteSign)]
        self.deviations = [cell for cell in cells if isinstance(cell, UnitDeviation)]
        self.parameters = [
            ms.Parameter(ms.Tensor(_signs(weight)), name=f"monitor.{weight.name}", requires_grad=False)
            for weight in self.weights
        ]

    def measure(self, images: Callable[[], np.ndarray]) -> dict[str, float]:
        figures = {}
        if self.weights:
            figures["bit_flips"] = self._bit_flips()
        if self.activations:
            figures["saturated_activations"] = self._saturated_activations(images())
        return figures

    def _bit_flips(self) -> float:
        flipped = 0
        for weight, before in zip(self.weights, self.parameters, strict=True):
            now = _signs(weight)
            flipped += int((now != before.asnumpy()).sum())
            before.set_data(ms.Tensor(now))
        return 100 * flipped / sum(weight.size for weight in self.weights)

    def _saturated_activations(self, images: np.ndarray) -> float:
        counts = []

        def count(cell, inputs):
            magnitude = np.abs(inputs[0].asnumpy())
            counts.append((np.count_nonzero(magnitude >= 1), magnitude.size))

        hooks = [cell.register_forward_pre_hook(count) for cell in self.activations]
        for cell in self.deviations:
            cell.set_train(True)  # what the signs see in training
        try:
            with without_graph():
                self.network(self.inputs(ms.Tensor(images)))
        finally:
            for hook in hooks:
                hook.remove()
            for cell in self.deviations:
                cell.set_train(False)
        saturated, total = np.sum(counts, axis=0)
        return 100 * saturated / total


def _signs(weight: ms.Parameter) -> np.ndarray:
    """1 where the bit is set, that is the weight is not negative; int8."""
    return (weight.asnumpy() >= 0).astype(np.int8)
