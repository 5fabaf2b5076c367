# SPDX-License-Identifier: Apache-2.0
"""What the engine looks for on a network and on the cells in it, each with who looks for it.

A network inherits from none of these: it has the attributes that it needs, and MindSpore's `nn.Cell` as its
base. Only `embed` must be there; what is missing of the rest has the default that is named.
"""

from collections.abc import Mapping
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import nn

from .conv import Window
from .init import Initialiser


class Network(Protocol):
    """A model's network: NCHW float32 -> logits (N, num_classes)."""

    head_prefix: str
    """What the names of the classifier's parameters begin with, as "fc.". Without it weights of another
    number of classes cannot be loaded (`checkpoint.weights.load_weights`)."""

    stages: tuple[str, ...]
    """What the names of each stage's parameters begin with, in forward order, as ("prep.", "layer1"); what no
    stage has, as the classifier, never freezes. Read by `recipe.Recipe.param_groups` for `freeze_epochs`.
    Without it nothing can freeze."""

    side_multiple: int
    """The sides of its images must be multiples of this, in pixels; a class attribute. Without it: 1. Read by
    `recipe.Recipe`, for evaluation of whole pictures."""

    def embed(self, x: ms.Tensor) -> ms.Tensor:
        """Features before the classifier, (N, 3, H, W) -> (N, D). Read by `deploy.embedding` for retrieval,
        search and the nearest-neighbour probe."""

    def translate_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Weights under other names and in other layouts to this network's; names of no known kind stay.

        Called by `checkpoint.weights.load_weights` before names are compared. Without it: PyTorch's names for
        normalisation layers are understood, and nothing else. Raises UserError for weights of another
        variant; the message goes on behind the name of the file.
        """

    def fold(self) -> None:
        """Puts into the weights what inference need not compute again, by `layers.fold.fold_layers`.

        Called before `deploy.export` writes a file and `analysis.ascend_graphs` compiles one. Answers and
        features stay the same, no training can follow, and a second call changes nothing. Without it the
        weights are exported as they are.
        """


class Layer(Protocol):
    """A cell within a network."""

    keep_float32: bool
    """Mixed precision leaves this cell, and all in it, in float32 (`training.precision`); a class attribute.
    Without it: only normalisation layers of `nn` stay."""

    initialiser: Initialiser
    """Where this cell's `weight` starts from, in place of the network's initialiser
    (`layers.init.initialise`)."""

    on_cpu: bool
    """This cell computes by operators that are fast on a CPU; false: by those of other devices
    (`layers.device`)."""

    weight_bits: int
    """1 where the weight is used as one bit a number; for counting (`analysis.cost`). Without it: 32."""

    input_bits: int
    """1 where only signs come in; for counting (`analysis.cost`). Without it: 32."""

    tap: nn.Cell | None
    """Its images go through `tap.inputs` and its results through `tap.outputs`, where it is not None: a
    convolution or dense layer, whose factors an optimizer captures (`optim.thor.tap`)."""

    window: Window
    """What of its images a convolution sees. Read by `optim.thor.optimizer`; without it, a tapped layer is
    dense."""

    recompute_block: bool
    """The inside of this cell is computed again in the backward pass; for counting (`analysis.cost`), as
    MindSpore does not say on which cells `recompute()` was called."""

    ghost_batch: int
    """Images whose batch statistics are taken together in training, 0: all (`layers.norm.BatchNorm`);
    `analysis.cost`, which has one image, sets it to 1."""
