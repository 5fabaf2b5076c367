"""How long is a training step of ResNet9 against the same network in PyTorch?

Batch 512, float32, Nesterov SGD with weight decay, on the CPU. Two processes stay up, ours and PyTorch's, and
take turns step by step, so that a drift of the machine's speed meets both.

    python3.11 -m venv torch_venv && torch_venv/bin/pip install torch==2.13.0 numpy==1.26.4
    python -m benchmarks.train_step --torch_python torch_venv/bin/python

Writes benchmarks/records/train_step.json. The bar: our median is at most 1.25 times PyTorch's (NCHW).
"""

import argparse
import sys

from benchmarks.record import RECORDS, ROOT, parser, spread, version_of, write_record
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


def torchs():
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
    flags.add_argument("--serve", choices=["ours", "torch"], help=argparse.SUPPRESS)
    own = flags.parse_args()
    if own.serve:
        serve({"ours": ours, "torch": torchs}[own.serve]())
        return
    if not own.torch_python:
        flags.error("--torch_python is needed")

    seconds = take_turns(
        {
            name: Peer([python, "-m", "benchmarks.train_step", "--serve", role])
            for name, python, role in (
                ("quartet", sys.executable, "ours"), ("pytorch", own.torch_python, "torch"),
            )
        },
        steps=own.pairs,
    )  # fmt: skip
    ratio = spread(ratios(seconds, "quartet", "pytorch"), 3)
    write_record(
        RECORDS / "train_step.json",
        question="seconds of one ResNet9 training step, batch 512, float32, CPU",
        command="python -m benchmarks.train_step --torch_python torch_venv/bin/python",
        versions={"torch": version_of("torch", python=own.torch_python)},
        seconds={name: spread(values, 3) for name, values in seconds.items()},
        ratio=ratio,
        bar="median ratio <= 1.25",
    )
    report(seconds, {"pytorch": ratio})


if __name__ == "__main__":
    main()
