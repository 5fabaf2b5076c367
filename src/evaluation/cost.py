"""What a network costs: parameters, multiply-adds of an image, and what its backward pass keeps."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np
from mindspore import nn

from src.model_utils.errors import UserError


@dataclass
class CellCost:
    """One cell without the cells in it.

    Attributes:
        output_shape: without the batch; () where the cell was not called or returns no tensor.
        parameters: numbers in its own parameters, running statistics apart.
        multiply_adds: of one image, in all calls.
    """

    name: str
    parameters: int
    output_shape: tuple[int, ...] = ()
    multiply_adds: int = 0


@dataclass
class Kept:
    """Bytes kept for the backward pass: of each image, and once for a batch, as what is made of weights."""

    image: int = 0
    batch: int = 0

    def of(self, images: int) -> int:
        return self.batch + images * self.image


@dataclass
class NetworkCost:
    """What `measure` found.

    Attributes:
        cells: in the order of the network, each before the ones in it; the network itself is the first.
        kept: besides the parameters and the image.
        recomputed: the same within each cell that is recomputed.
    """

    cells: list[CellCost] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)
    recomputed: dict[str, Kept] = field(default_factory=lambda: defaultdict(Kept))

    def activations(self, images: int) -> int:
        """Bytes kept of that many images; of the recomputed cells only the largest, as one follows another."""
        return self.kept.of(images) + max(
            (inside.of(images) for inside in self.recomputed.values()), default=0
        )


def measure(network: nn.Cell, *, image_size: int) -> NetworkCost:
    """Runs `network` on one image, (1, 3, image_size, image_size), in training mode and outside of a graph.

    A cell's multiply-adds are those of its parameter `weight`, (out, in, *kernel): each number is used once
    at every position of the output, in convolutions, grouped ones too, and in dense layers.

    Kept is every tensor that the framework saves for the backward pass, once, if it is no parameter and not
    the image. The first dimension tells, as there is one image, what belongs to it (1) from what is made of
    weights. A cell with an attribute `recompute_block` that is true counts as recomputed: its input is kept.

    Recomputation is off afterwards, and running statistics have seen the image.

    Raises:
        UserError: the network does not take images of that size.
    """
    image = ms.Tensor(np.zeros((1, 3, image_size, image_size), np.float32))
    network.set_train(True)
    observer = _Observer(known=[image, *network.get_parameters()])

    def forward(image):
        with ms.saved_tensors_hooks(observer.keep, lambda packed: packed):
            network(image)
        return image.sum()  # nothing of the network's, so that no backward pass follows

    with _operator_by_operator(), observer.watching(network):
        try:
            ms.value_and_grad(forward)(image)[0].asnumpy()
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"image_size: {image_size} given, but the network does not take such images "
                f"({str(error).strip().splitlines()[0]})"
            ) from error
    return observer.cost


@contextmanager
def _operator_by_operator() -> Iterator[None]:
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)


class _Observer:
    """Knows tensors by their address, which names one only as long as it is held."""

    def __init__(self, *, known: list[ms.Tensor]):
        self.cost = NetworkCost()
        self.addresses = {tensor.data_ptr() for tensor in known}
        self.held: list[ms.Tensor] = []
        self.made_of_weights: list[ms.Tensor] = []
        self.ledger = self.cost.kept

    def keep(self, tensor: ms.Tensor) -> None:
        if tensor.data_ptr() in self.addresses:
            return
        self.addresses.add(tensor.data_ptr())
        if tensor.shape[:1] == (1,):
            self.held.append(tensor)
            self.ledger.image += tensor.nbytes
        else:
            self.made_of_weights.append(tensor)
            self.ledger.batch += tensor.nbytes

    @contextmanager
    def watching(self, network: nn.Cell) -> Iterator[None]:
        hooks = []
        for name, cell in network.cells_and_names():
            own = [p for p in cell.get_parameters(expand=False) if "moving_" not in p.name.split(".")[-1]]
            self.cost.cells.append(CellCost(name, sum(p.size for p in own)))
            hooks.append(cell.register_forward_hook(self._counts(self.cost.cells[-1])))
            if getattr(cell, "recompute_block", False):
                cell._recompute_cell = None  # it would hide the inside
                hooks.append(cell.register_forward_pre_hook(self._enters(name)))
                hooks.append(cell.register_forward_hook(self._leaves))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _counts(self, cost: CellCost):
        def hook(cell, inputs, output):
            if isinstance(output, ms.Tensor):
                cost.output_shape = output.shape[1:]
                weight = getattr(cell, "weight", None)
                if isinstance(weight, ms.Parameter) and weight.ndim > 1:
                    cost.multiply_adds += weight.size * (output.size // weight.shape[0])
                    # Together they are as large as the network, or twice.
                    self.addresses -= {tensor.data_ptr() for tensor in self.made_of_weights}
                    self.made_of_weights.clear()

        return hook

    def _enters(self, name: str):
        def hook(cell, inputs):
            self.keep(inputs[0])
            self.ledger = self.cost.recomputed[name]

        return hook

    def _leaves(self, cell, inputs, output):
        self.ledger = self.cost.kept
