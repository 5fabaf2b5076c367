# SPDX-License-Identifier: Apache-2.0
"""A training with MultiGrain's loss of pairs over all ranks, for test_distributed.py and its processes."""

import mindspore as ms
import numpy as np
from mindspore import nn

from src.layers.conv import dense
from src.layers.init import initialise, torch_default
from src.layers.pixels import Pixels
from src.multigrain.losses import GatherRows, JointLoss, MarginLoss
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD
from src.training.loss_scale import LossScale
from src.training.train_step import TrainStep

STEPS, ROWS, DIM = 4, 12, 6


class Net(nn.Cell):
    """(N, 3, 1, 1) -> (embedding, logits); without statistics, which are each rank's own."""

    def __init__(self):
        super().__init__()
        self.embedding = dense(in_channels=3, out_channels=DIM)
        self.fc = dense(in_channels=DIM, out_channels=4)
        initialise(self, seed=1, weight=torch_default)

    def construct(self, x):
        embedding = self.embedding(x.reshape(x.shape[0], -1))
        return embedding, self.fc(embedding)


def train(*, rank, size):
    """The losses with their parts and, by name, what was trained; each rank has its part of every batch."""
    network = Net()
    gather = GatherRows(rank=rank, cards=size) if size > 1 else None
    loss = JointLoss(weight=0.4, metric=MarginLoss(beta=0.8), gather=gather)
    parameters = (*network.trainable_params(), *loss.trainable_params())
    step = TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        loss,
        SGD([ParamGroup("all", parameters, 1e-3)], momentum=0.9, nesterov=False),
        rates=np.full(STEPS, 0.1),
        loss_scale=LossScale("fixed", value=4.0),
        cards=size,
    )
    losses = []
    for number in range(STEPS):
        rng = np.random.default_rng([7, number])
        images = rng.normal(size=(ROWS, 3, 1, 1)).astype(np.float32)
        classes = rng.integers(0, 4, ROWS).astype(np.int32)
        instances = np.repeat(rng.permutation(100)[: ROWS // 2], 2).astype(np.int32)
        noise = rng.gumbel(size=4 * ROWS).astype(np.float32), rng.integers(0, 3 * ROWS, ROWS, np.int32)
        mine = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
        targets = (classes[mine], instances[mine], *noise)
        outputs = step(ms.Tensor(images[mine]), ms.mutable(tuple(map(ms.Tensor, targets))))
        losses.append([float(value.asnumpy()) for value in (outputs[0], *outputs[4:])])
    return {"losses": np.array(losses), **{p.name: p.asnumpy() for p in parameters}}
