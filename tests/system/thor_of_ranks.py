# SPDX-License-Identifier: Apache-2.0
"""A training with THOR over all ranks, for test_distributed.py and its processes."""

import mindspore as ms
import numpy as np

from src.layers.losses import CrossEntropy
from src.layers.pixels import Pixels
from src.optim.groups import ParamGroup
from src.optim.thor.optimizer import Thor
from src.training.loss_scale import LossScale
from src.training.train_step import TrainStep
from tests.optim.thor.oracle import SmallNet, batch

STEPS, IMAGES = 4, 12  # inverses in the first step and in the third


def train(*, rank, size):
    """All that was trained, by name; each rank has its part of every batch."""
    network = SmallNet(first=True)
    optimizer = Thor(
        [ParamGroup("all", tuple(network.trainable_params()), 1e-3)],
        network=network, momentum=0.9, nesterov=False, lr_in_velocity=False, lr=0.1, layer_lr=0.0,
        damping=0.02, every=2, block=20, rank=rank, cards=size,
    )  # fmt: skip
    step = TrainStep(
        network, Pixels((0, 0, 0), (1, 1, 1)), CrossEntropy(), optimizer,
        rates=np.full(STEPS, 0.1), loss_scale=LossScale("fixed", value=16.0), clip_norm=0.5,
        cards=size, bucket_bytes=300,
    ).set_train(True)  # fmt: skip
    mine = slice(rank * IMAGES // size, (rank + 1) * IMAGES // size)
    for number in range(STEPS):
        step(*(ms.Tensor(part[mine]) for part in batch(number, count=IMAGES)))
    return {p.name: p.asnumpy() for p in step.state}


def save(folder, *, rank, size):
    np.savez(folder / f"thor_of_{size}_{rank}.npz", **train(rank=rank, size=size))
