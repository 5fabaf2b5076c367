# SPDX-License-Identifier: Apache-2.0
"""What a network costs: parameters, multiply-adds of an image, and what its backward pass keeps."""

from dataclasses import dataclass, field
from functools import partial

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.graph.api import _pynative_executor

from ..common.errors import UserError


@dataclass
class CellCost:
    """One cell without the cells in it; the 1-bit counts are parts of the two others.

    `output_shape` is that of one image, of several outputs the last one's, () where there is none and of
    nn.Identity.
    """

    name: str
    parameters: int
    parameters_1bit: int = 0
    output_shape: tuple[int, ...] = ()
    multiply_adds: int = 0
    multiply_adds_1bit: int = 0


@dataclass
class Kept:
    """Bytes kept for the backward pass: of each image, and of each batch (what is made of weights)."""

    image: int = 0
    batch: int = 0

    def of(self, images: int) -> int:
        return self.batch + images * self.image


@dataclass
class NetworkCost:
    """All cells, the network first; what is kept, and what is kept within each recomputed cell."""

    cells: list[CellCost] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)
    recomputed: dict[str, Kept] = field(default_factory=dict)

    def activations(self, images: int) -> int:
        """Bytes kept of so many images, and of the recomputed cells the largest: one follows another."""
        return self.kept.of(images) + max((cell.of(images) for cell in self.recomputed.values()), default=0)


def measure(network: nn.Cell, *, image_size: int) -> NetworkCost:
    """Runs `network` on one image, (1, 3, image_size, image_size), in training mode and without a graph.

    A cell's multiply-adds are those of its parameter `weight`, (out, in, *kernel): each number is used once
    at every position of the output, in convolutions, grouped ones too, and in dense layers. The weight is
    1-bit where the cell's `weight_bits` is 1. Its multiply-adds are 1-bit where `input_bits` is 1 too; with
    real-valued input they are additions of floats. The scale of a binary weight is not counted: the
    normalisation behind it can hold it.

    Kept is every tensor that the framework saves for the backward pass, counted once, without parameters and
    the image. A tensor whose first dimension is 1 belongs to the image; the others are made of weights. A
    cell with a true `recompute_block` counts as recomputed: of it the input is kept.

    The network cannot be trained afterwards: recomputation and ghost batches are off, and its running
    statistics have seen the image.

    Raises:
        UserError: the network does not take images of that size.
    """
    image = ms.Tensor(np.zeros((1, 3, image_size, image_size), np.float32))
    observer = _Observer(network.set_train(True), image)

    def forward(image):
        with ms.saved_tensors_hooks(observer.keep, lambda kept: kept):
            network(image)
        return image.sum()  # nothing of the network's, so that no backward pass follows

    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        ms.value_and_grad(forward)(image)[0].asnumpy()
    except (RuntimeError, TypeError, ValueError) as error:
        _pynative_executor.clear_res()  # or the next gradient would count as the gradient of this one
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"image_size: the network does not take {image_size} pixels: {reason}") from error
    finally:
        ms.set_context(mode=mode)
        for hook in observer.hooks:
            hook.remove()
    return observer.cost


def _is_1bit(cell: nn.Cell, operand: str) -> bool:
    return getattr(cell, f"{operand}_bits", 32) == 1


class _Observer:
    """Hooks in all cells. It knows tensors by their address, which names one as long as that is held."""

    def __init__(self, network: nn.Cell, image: ms.Tensor):
        self.cost = NetworkCost()
        self.ledger = self.cost.kept
        self.known = {tensor.data_ptr() for tensor in (image, *network.get_parameters())}
        self.held, self.made_of_weights, self.hooks = [], [], []
        for name, cell in network.cells_and_names():
            own = [p for p in cell.get_parameters(expand=False) if ".moving_" not in f".{p.name}"]
            one_bit = cell.weight.size if _is_1bit(cell, "weight") else 0
            self.cost.cells.append(CellCost(name, sum(p.size for p in own), one_bit))
            self.hooks.append(cell.register_forward_hook(partial(self._count, self.cost.cells[-1])))
            if getattr(cell, "ghost_batch", 0):
                cell.ghost_batch = 1  # the one image is a split
            if getattr(cell, "recompute_block", False):
                cell._recompute_cell = None  # it would hide the inside
                self.hooks.append(cell.register_forward_pre_hook(partial(self._enter, name)))
                self.hooks.append(cell.register_forward_hook(self._leave))

    def keep(self, tensor: ms.Tensor) -> None:
        if tensor.data_ptr() in self.known:
            return
        self.known.add(tensor.data_ptr())
        if tensor.shape[:1] == (1,):
            self.held.append(tensor)
            self.ledger.image += tensor.nbytes
        else:
            self.made_of_weights.append(tensor)
            self.ledger.batch += tensor.nbytes

    def _count(self, cost: CellCost, cell, inputs, output) -> None:
        if isinstance(cell, nn.Identity):
            return  # a place where other configs have something
        weight = getattr(cell, "weight", None)
        output = output[-1] if isinstance(output, tuple) else output
        cost.output_shape = output.shape[1:] if isinstance(output, ms.Tensor) else ()
        if cost.output_shape and isinstance(weight, ms.Parameter) and weight.ndim > 1:
            products = weight.size * (output.size // weight.shape[0])
            cost.multiply_adds += products
            cost.multiply_adds_1bit += products * (_is_1bit(cell, "weight") and _is_1bit(cell, "input"))
            # Held for all layers, they would take as much memory as the network, or twice.
            self.known -= {tensor.data_ptr() for tensor in self.made_of_weights}
            self.made_of_weights.clear()

    def _enter(self, name: str, cell, inputs) -> None:
        self.keep(inputs[0])
        self.ledger = self.cost.recomputed.setdefault(name, Kept())

    def _leave(self, cell, inputs, output) -> None:
        self.ledger = self.cost.kept
