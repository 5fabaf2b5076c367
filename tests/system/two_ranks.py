"""What each process of test_distributed.py does: two_ranks.py step|stop OUT_FOLDER [DATA_FOLDER]."""

import gc
import os
import signal
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.common.cli import run
from src.common.errors import UserError
from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.losses import CrossEntropy
from src.layers.norm import batch_norm2d, synchronise_batch_norm
from src.layers.pixels import Pixels
from src.model_utils.config import load_config
from src.model_utils.device_adapter import get_rank_id, set_up_device
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
from src.zoo import config_class_of, create_recipe

STEPS, BATCH, BAD_STEP = 5, 12, 2
STOP_REQUEST = 4


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


def train(step, *, rank, size):
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
    rows = train(step, rank=device.rank, size=device.size)
    arrays = {p.name: p.asnumpy().copy() for p in step.get_parameters()}
    integers, reals = (sum_over_ranks(vector, size=device.size) for vector in vectors_of(device.rank))
    train(step, rank=device.rank, size=device.size)
    path = folder / f"rank_{device.rank}.npz"
    synchronised = build(cards=device.size, normalised=True)
    arrays["bn.rows"] = train(synchronised, rank=device.rank, size=device.size)
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


class SignalAt:
    """Training batches; before batch STOP_REQUEST the last rank alone gets a SIGTERM."""

    def __init__(self, batches):
        self._batches = batches
        self.class_names = batches.class_names

    def __len__(self):
        return len(self._batches)

    def batches(self, start, stop):
        for step, batch in enumerate(self._batches.batches(start, stop), start + 1):
            if step == STOP_REQUEST and get_rank_id() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def recipe_with_signal(config):
    recipe = create_recipe(config)
    batches = recipe.train_batches
    recipe.train_batches = lambda **where: SignalAt(batches(**where))
    return recipe


def stop_and_resume(folder, data_path):
    """Trains straight through, and twice with a stop, of which one goes on; says where the ranks stopped."""
    config = load_config(
        {
            "model": "resnet9", "data_path": str(data_path), "device_target": "CPU", "widths": [2, 2, 4, 4],
            "batch_size": 20, "eval_batch_size": 35, "epochs": 2.0, "warmup_epochs": 0.4, "lr": 0.1,
            "log_every": 3, "accumulate_steps": 2, "eval_every": 0.8, "ema_decay": 0.5, "sync_bn": True,
        },
        config_class_of=config_class_of,
    )  # fmt: skip
    session.start(config, create_recipe, run_dir=folder / "straight")
    for name in ("moved", "stopped"):
        gc.collect()
        try:
            session.start(config, recipe_with_signal, run_dir=folder / name)
        except Interrupted as stop:
            (folder / f"{name}_of_rank_{get_rank_id()}.txt").write_text(str(stop))
    gc.collect()
    session.resume(config, create_recipe, run_dir=folder / "stopped")


def main(arguments):
    todo = {"step": try_the_step, "stop": stop_and_resume}
    todo[arguments[0]](*map(Path, arguments[1:]))


if __name__ == "__main__":
    run(main)
