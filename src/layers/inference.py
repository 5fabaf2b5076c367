# SPDX-License-Identifier: Apache-2.0
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
        return self.network(self.prepared(images))

    def prepared(self, images: ms.Tensor) -> ms.Tensor:
        """What the network takes."""
        return images if self.inputs is None else self.inputs(images)


class Embedding(Inference):
    """What the network's `embed` gives."""

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.network.embed(self.prepared(images))


class LogitsAndEmbedding(Inference):
    """Both; the compiler merges what they share."""

    def construct(self, images: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        images = self.prepared(images)
        return self.network(images), self.network.embed(images)
