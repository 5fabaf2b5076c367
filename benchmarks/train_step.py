# SPDX-License-Identifier: Apache-2.0
"""How long is a training step of ResNet9 against the same network in PyTorch?

Batch 512, float32, Nesterov SGD with weight decay, on the CPU. Three processes stay up, ours and PyTorch's
with both of its memory formats, and take turns step by step, so that a drift of the machine's speed meets
all.

    python3.11 -m venv torch_venv && torch_venv/bin/pip install torch==2.13.0 numpy==1.26.4
    python -m benchmarks.train_step --torch_python torch_venv/bin/python

Writes benchmarks/records/train_step.json. The bar: our median is at most that of PyTorch's faster
format.
"""

import argparse
import sys
from functools import partial

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, version_of, write_record
from benchmarks.steps import Peer, ratios, report, serve, take_turns

BATCH = 512


def ours():
    """A callable that makes one step and returns the loss."""
    import mindspore as ms
    import numpy as np

    from src.model_utils.config import load_config
    from src.model_utils.device_adapter import set_up_device
    from src.training.build import build_train_step
    from src.zoo import config_class_of, create_recipe

    set_up_device("CPU")
    config = load_config(
        {"batch_size": BATCH},
        config_class_of=config_class_of,
        config_path=ROOT / "configs/resnet9/cifar10.yaml",
    )
    recipe = create_recipe(config)
    network = recipe.network(num_classes=10)
    step = build_train_step(recipe, network, steps=24 * 97, steps_per_epoch=97, cards=1)
    rng = np.random.default_rng(0)
    images = ms.Tensor(rng.standard_normal((BATCH, 3, 32, 32)).astype(np.float32))
    targets = ms.Tensor(np.eye(10, dtype=np.float32)[rng.integers(0, 10, BATCH)])
    return lambda: float(step(images, targets)[0].asnumpy())


def torchs(*, channels_last: bool):
    """The same in PyTorch."""
    import numpy as np
    import torch
    from torch import nn

    def block(inputs, outputs, *more):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), *more
        )

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Sequential(block(width, width), block(width, width))

        def forward(self, x):
            return x + self.body(x)

    network = nn.Sequential(
        block(3, 64),
        block(64, 128, nn.MaxPool2d(2)),
        Residual(128),
        block(128, 256, nn.MaxPool2d(2)),
        block(256, 512, nn.MaxPool2d(2)),
        Residual(512),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(512, 10, bias=False),
    )
    assert sum(p.numel() for p in network.parameters()) == 6_573_120
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss()
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((BATCH, 3, 32, 32)).astype(np.float32))
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(np.eye(10, dtype=np.float32)[rng.integers(0, 10, BATCH)])

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(images) * 0.125, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main():
    flags = parser(__doc__)
    flags.add_argument("--torch_python", help="the Python of an environment with torch 2.13.0")
    flags.add_argument("--pairs", type=int, default=9, help="counted steps of each (default 9)")
    roles = {
        "ours": ours,
        "torch_nchw": partial(torchs, channels_last=False),
        "torch_channels_last": partial(torchs, channels_last=True),
    }
    flags.add_argument("--serve", choices=list(roles), help=argparse.SUPPRESS)
    own = flags.parse_args()
    if own.serve:
        serve(roles[own.serve]())
        return
    if not own.torch_python:
        flags.error("--torch_python is needed")

    command = ["-m", "benchmarks.train_step", "--serve"]
    seconds = take_turns(
        {
            role: Peer([sys.executable if role == "ours" else own.torch_python, *command, role])
            for role in roles
        },
        steps=own.pairs,
    )
    peers = [role for role in roles if role != "ours"]
    found = {peer: spread(ratios(seconds, "ours", peer), 3) for peer in peers}
    write_record(
        RECORDS / "train_step.json",
        question="seconds of one ResNet9 training step, batch 512, float32, CPU",
        command="python -m benchmarks.train_step --torch_python torch_venv/bin/python",
        versions={"torch": version_of("torch", python=own.torch_python)},
        seconds={name: spread(values, 3) for name, values in seconds.items()},
        ratio=found,
        bar="the larger median ratio <= 1.0",
    )
    report(seconds, found)


if __name__ == "__main__":
    end_with(main)
