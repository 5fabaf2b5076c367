# SPDX-License-Identifier: Apache-2.0
"""The graphs that an Ascend card would run for a config, compiled where there is no card and no data."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import context

from ..data.binary import ImageSet
from ..layers.inference import Inference
from ..training.build import build_train_step
from .graph_facts import Graph, compile_graph, placeholder


@contextlib.contextmanager
def as_on_ascend(cards: int) -> Iterator[None]:
    """Within it, this process builds and compiles what the first of that many Ascend cards would.

    Cells of ours and of MindSpore choose between operators by the context's `device_target`, and data by the
    number of cards: both are answered as on a card. MindSpore refuses to set a target that it has no driver
    for, so the question is answered in its place. Nothing may run within.
    """
    real = context.get_context

    def get_context(key):
        return "Ascend" if key == "device_target" else real(key)

    before = {name: os.environ.get(name) for name in ("RANK_SIZE", "RANK_ID")}
    os.environ |= {"RANK_SIZE": str(cards), "RANK_ID": "0"}
    ms.get_context = context.get_context = get_context
    try:
        yield
    finally:
        ms.get_context = context.get_context = real
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def ascend_graphs(
    recipe: Any, *, num_classes: int, images: int, picture_size: int, cards: int
) -> dict[str, Graph]:
    """The graphs "train", "factors", "eval" and "export" of a recipe, those of one card.

    train: the whole step. factors: that of updates with factors, where the optimizer has such
    (`TrainStep.with_factors`). eval: from a batch's images to logits. export: from one normalised image to
    logits, with all computed before that can be.

    Args:
        recipe: a `src.recipe.Recipe`; its data is drawn, not read.
        num_classes: classes of the data set.
        images: training images of the data set.
        picture_size: side of its pictures, in pixels.
        cards: that train together.

    Raises:
        UserError: the recipe does not fit such data, or MindSpore cannot compile it.
    """
    with as_on_ascend(cards):
        count = num_classes * recipe.config.examples_per_class or images
        drawn = ImageSet(
            # A view of one picture: no data set fits into memory faster.
            np.broadcast_to(np.uint8(128), (count, 3, picture_size, picture_size)),
            (np.arange(count) % num_classes).astype(np.int32),
            tuple(map(str, range(num_classes))),
        )
        recipe = recipe.changed(sources={"train": drawn, "test": drawn}).settled(size=cards)
        c = recipe.config
        batches = recipe.train_batches(rank=0, size=cards)
        evaluated, *_ = next(iter(recipe.eval_batches(rank=0, size=cards)))
        network = recipe.network(num_classes=num_classes)
        step = build_train_step(
            recipe,
            network,
            steps=c.train_steps * c.accumulate_steps or max(1, round(c.epochs * len(batches))),
            steps_per_epoch=len(batches),
            cards=cards,
        )
        batch = tuple(map(placeholder, batches.batch(0, 0)))
        graphs = {"train": compile_graph(step, *batch)}
        if step.optimizer.factors:
            with step.with_factors():
                graphs["factors"] = compile_graph(step, *batch)
        del step
        graphs["eval"] = compile_graph(Inference(network, recipe.inputs()), placeholder(evaluated))
        if hasattr(network, "fold"):
            network.fold()
        one_image = ms.Tensor(shape=(1, 3, recipe.image_size, recipe.image_size), dtype=ms.float32)
        graphs["export"] = compile_graph(Inference(network), one_image)
    return graphs
