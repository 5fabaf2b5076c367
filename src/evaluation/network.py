"""A network evaluated on all images of a split, over all ranks."""

import contextlib

import mindspore as ms
import numpy as np

from ..common import heartbeat
from ..model_utils.device_adapter import without_graph
from ..parallel.collective import sum_over_ranks
from .classification import Evaluation, evaluate


def evaluate_network(
    network, inputs, batches, *, num_classes: int, flip_tta: bool = False, size: int = 1, worst: int = 0
) -> Evaluation:
    """`evaluate` for a network, which is left in evaluation mode; sums go over `size` ranks.

    Args:
        inputs: the recipe's cell that makes float32 images of uint8 ones.
        batches: those of many shapes run without a graph.
    """
    network.set_train(False)
    mode = contextlib.nullcontext if batches.one_shape else without_graph

    def predict(images: np.ndarray) -> np.ndarray:
        heartbeat.progress()
        with mode():
            images = ms.Tensor(images)
            return network(inputs(images) if images.dtype == ms.uint8 else images).asnumpy()

    return evaluate(
        predict,
        batches,
        num_classes=num_classes,
        flip_tta=flip_tta,
        reduce=lambda vector: sum_over_ranks(vector, size=size),
        worst=worst,
    )
