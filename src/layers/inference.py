"""A network as it is used, not trained."""

import mindspore as ms
from mindspore import nn


class Inference(nn.Cell):
    """A network in evaluation mode, with or without the cell that makes its input of pictures.

    Make a new one for each use. MindSpore 2.10 keeps the first graph that it compiled for a cell, or exported
    of it, even if the cell has changed since: from training to evaluation, in precision, or by `fold`.
    Parameters keep their names.
    """

    def __init__(self, network: nn.Cell, inputs: nn.Cell | None = None):
        super().__init__(auto_prefix=False)
        self.network = network
        self.inputs = inputs
        self.set_train(False)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        if self.inputs is not None:
            images = self.inputs(images)
        return self.network(images)
