# SPDX-License-Identifier: Apache-2.0
"""What each process of test_distributed.py does: several_ranks.py TASK OUT_FOLDER DATA_FOLDER [MANY_FOLDER].

TASK is one of those at the end of this file.
"""

import gc
import os
import shutil
import signal
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.common.cli import run
from src.common.errors import UserError
from src.evaluation.evaluate import evaluate_network
from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.losses import CrossEntropy
from src.layers.norm import batch_norm2d, synchronise_batch_norm
from src.layers.pixels import Pixels
from src.model_utils.config import load_config
from src.model_utils.device_adapter import get_device_num, get_rank_id, set_up_device
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD
from src.parallel.collective import (
    broadcast_from_first,
    check_equal_over_ranks,
    sum_over_ranks,
    text_of_first,
)
from src.training import session
from src.training.loss_scale import LossScale
from src.training.signals import Interrupted
from src.training.train_step import TrainStep
from src.zoo import config_class_of
from tests.helpers.tiny import TinyRecipe
from tests.system import pairs_of_ranks, thor_of_ranks

STEPS, BATCH, BAD_STEP = 5, 12, 2
STOP_REQUEST, KILLED_IN = 4, 8


class Net(nn.Cell):
    """(N, 3, 6, 6) -> (N, 4), without batch normalisation, or with one that all ranks share."""

    def __init__(self, *, normalised):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=5, kernel_size=3)
        self.norm = batch_norm2d(channels=5) if normalised else nn.Identity()
        self.linear = dense(in_channels=5, out_channels=4)
        initialise(self, seed=2, weight=torch_default)

    def construct(self, x):
        return self.linear(ops.relu(self.norm(self.conv(x))).mean((2, 3)))


def build(cards, *, normalised=False):
    network = Net(normalised=normalised)
    if normalised:
        synchronise_batch_norm(network, cards=cards)
    return TrainStep(
        network,
        Pixels((0, 0, 0), (1, 1, 1)),
        CrossEntropy(),
        SGD([ParamGroup("all", tuple(network.trainable_params()), 1e-3)], momentum=0.9, nesterov=True),
        rates=np.array([0.5, 0.4, 0.3, 0.2, 0.1]),
        loss_scale=LossScale("dynamic", value=256.0, window=2),
        clip_norm=0.05,
        cards=cards,
        bucket_bytes=300,
    )


def train_steps(step, *, rank, size):
    """Rows of (loss, loss scale, overflow, gradient norm); each rank takes its part of every batch."""
    rows = []
    for number in range(STEPS):
        rng = np.random.default_rng([3, number])
        x = rng.normal(size=(BATCH, 3, 6, 6)).astype(np.float32)
        targets = rng.dirichlet(np.ones(4), size=BATCH).astype(np.float32)
        if number == BAD_STEP:
            targets[-1] = np.nan  # only the last rank sees it
        mine = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
        outputs = step(ms.Tensor(x[mine]), ms.Tensor(targets[mine]))
        rows.append([float(value.asnumpy()) for value in outputs])
    return np.array(rows)


def vectors_of(rank):
    """Integers that float32 cannot hold, and real numbers."""
    return np.array([2**40 + 1 + rank, 2**24 + 1, -3 * rank]), np.array([2.0**24 + 1, np.pi])


def try_the_step(folder):
    """Trains, adds vectors up, trains again; saves what came out of it."""
    device = set_up_device("CPU")
    step = build(cards=device.size)
    rows = train_steps(step, rank=device.rank, size=device.size)
    arrays = {p.name: p.asnumpy().copy() for p in step.get_parameters()}
    integers, reals = (sum_over_ranks(vector, size=device.size) for vector in vectors_of(device.rank))
    train_steps(step, rank=device.rank, size=device.size)
    path = folder / f"rank_{device.rank}.npz"
    synchronised = build(cards=device.size, normalised=True)
    arrays["bn.rows"] = train_steps(synchronised, rank=device.rank, size=device.size)
    arrays |= {f"bn.{p.name}": p.asnumpy() for p in synchronised.get_parameters()}
    arrays |= differences(step, device)
    np.savez(path, rows=rows, integers=integers, reals=reals, graphs=len(step.compile_cache), **arrays)


def differences(step, device):
    """What is said of equal and of different parameters, and how rank 0's bits come to the others."""
    parameters = list(step.get_parameters())
    said = []
    for _ in range(2):
        try:
            check_equal_over_ranks(parameters, step=7, size=device.size)
            said.append("equal")
        except UserError as error:
            said.append(str(error))
        weight = step.network.linear.weight
        weight.set_data(
            ms.Tensor(np.nextafter(weight.asnumpy(), np.float32(device.rank * 9), dtype=np.float32))
        )
    broadcast_from_first(parameters, size=device.size)
    check_equal_over_ranks(parameters, step=8, size=device.size)
    said.append(text_of_first(f"runs/{device.rank} \u00e9", size=device.size))
    return {"said": np.array(said), "linear.from_first": step.network.linear.weight.asnumpy()}


def config_of(data_path, **keys):
    """5 batches of 36 images an epoch, so in updates of 2 its end lies inside an accumulation."""
    return load_config(
        {
            "model": "resnet9", "data_path": str(data_path), "device_target": "CPU", "eval_batch_size": 9,
            "epochs": 2.0, "warmup_epochs": 0.4, "lr": 0.1, "log_every": 2, "eval_every": 0.8,
            "save_every": 0.8, "keep_checkpoints": 3, "ema_decay": 0.5, "sync_bn": True,
            "accumulate_steps": 2, **keys,
        },
        config_class_of=config_class_of,
    )  # fmt: skip


def evaluate(folder, *, rank=0, size=1):
    """An untrained network on all test images of a folder, in shares that may be uneven.

    A quarter of all, which no rank knows alone, is seen in six views.
    """
    recipe = TinyRecipe(config_of(folder, eval_batch_size=50))
    network = recipe.network(num_classes=4)
    batches = recipe.eval_batches(rank=rank, size=size)
    how = {"num_classes": 4, "size": size, "tta": "six", "tta_share": 0.25}
    return evaluate_network(network, recipe.inputs(), batches, **how)


def stop_last_rank(step, *_):
    """The last rank alone gets a SIGTERM while batch STOP_REQUEST is in hand."""
    if step == STOP_REQUEST and get_rank_id() == get_device_num() - 1:
        os.kill(os.getpid(), signal.SIGTERM)


def train_until_stopped(folder, config):
    """Says where the ranks stopped."""
    try:
        session.start(config, lambda c: TinyRecipe(c, stop_last_rank), run_dir=folder / "stopped")
    except Interrupted as stop:
        (folder / f"stopped_of_rank_{get_rank_id()}.txt").write_text(str(stop))


def train(folder, config):
    """Trains straight through, with a stop, and from what a kill inside an accumulation leaves."""

    def copy_run(step, *_):
        if step == KILLED_IN and get_rank_id() == 0:
            shutil.copytree(folder / "straight", folder / "killed")

    session.start(config, lambda c: TinyRecipe(c, copy_run), run_dir=folder / "straight")
    gc.collect()
    session.resume(config, TinyRecipe, run_dir=folder / "killed")
    gc.collect()
    train_until_stopped(folder, config)


def everything(folder, data_path, many_path):
    device = set_up_device("CPU")
    where = {"rank": device.rank, "size": device.size}
    try_the_step(folder)
    np.savez(folder / f"pairs_{device.rank}.npz", **pairs_of_ranks.train(**where))
    thor_of_ranks.save(folder, **where)
    evaluation = evaluate(many_path, **where)
    np.savez(
        folder / f"evaluation_{device.rank}.npz", **evaluation.metrics, confusion=evaluation.totals.confusion
    )
    train(folder, config_of(data_path, batch_size=12))


def stop(folder, data_path):
    device = set_up_device("CPU")
    thor_of_ranks.save(folder, rank=device.rank, size=device.size)
    train_until_stopped(folder, config_of(data_path, batch_size=9))


def go_on(folder, data_path):
    device = set_up_device("CPU")
    thor_of_ranks.save(folder, rank=device.rank, size=device.size)
    session.resume(config_of(data_path, batch_size=18), TinyRecipe, run_dir=folder / "stopped")


TASKS = {"everything": everything, "stop": stop, "go_on": go_on}


def main(arguments):
    TASKS[arguments[0]](*map(Path, arguments[1:]))


if __name__ == "__main__":
    run(main)
