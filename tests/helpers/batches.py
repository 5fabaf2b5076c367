# SPDX-License-Identifier: Apache-2.0
"""What tests of batches make, compare and count."""

import inspect
import threading

import numpy as np

from src.data.batches import Mixing, TrainBatches
from src.data.order import Order


def same(left, right) -> bool:
    """Whether two batches hold equal arrays."""
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def pool_threads() -> list[threading.Thread]:
    """The threads that read batches ahead."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def train_batches(kind, source, *how, **settings) -> TrainBatches:
    """Batches of crops.`kind`(source, *how); each setting goes where it belongs."""
    order = {"batch_size": 4, "seed": 5}
    parts = {Order: order, Mixing: {}, TrainBatches: {}, kind: {}}
    for name, value in settings.items():
        takes = (part for part in parts if name in inspect.signature(part).parameters)
        parts[next(takes)][name] = value
    return TrainBatches(
        Order(len(source.labels), **order),
        kind(source, *how, **parts[kind]),
        mixing=Mixing(**parts[Mixing]) if parts[Mixing] else None,
        **parts[TrainBatches],
    )
