# SPDX-License-Identifier: Apache-2.0
"""How long is a training step of BiT R50x1 against the official PyTorch network and mindcv's?

Images of 96x96, batch 32, float32, SGD with momentum 0.9, on the CPU. Three processes stay up and take turns
step by step. mindcv's runs with ONEDNN_MAX_CPU_ISA=AVX2 too, as ours sets it.

    git clone https://github.com/google-research/big_transfer
    python3.11 -m venv torch_venv && torch_venv/bin/pip install torch==2.13.0 numpy==1.26.4
    pip install --no-deps --target mindcv_packages mindcv==0.3.0
    python -m benchmarks.bit_train_step --torch_python torch_venv/bin/python --big_transfer big_transfer \
        --mindcv_packages mindcv_packages

Writes benchmarks/records/bit_train_step.json. The bars: our median is at most 2.0 times PyTorch's and at most
0.6 times mindcv's.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.record import RECORDS, end_with, parser, spread, version_of, write_record
from benchmarks.steps import Peer, ratios, report, serve, take_turns

BATCH, SIDE, CLASSES = 32, 96, 10
BARS = {"pytorch": 2.0, "mindcv": 0.6}


def batch():
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 3, SIDE, SIDE)).astype(np.float32)
    return images, rng.integers(0, CLASSES, BATCH)


def ours():
    """A callable that makes one step."""
    import mindspore as ms
    import numpy as np

    from src.model_utils.config import load_config
    from src.model_utils.device_adapter import set_up_device
    from src.training.build import build_train_step
    from src.zoo import config_class_of, create_recipe

    set_up_device("CPU")
    keys = {"model": "bit_r50x1", "pretrained_head": "replace", "batch_size": BATCH, "lr_base_batch": BATCH}
    recipe = create_recipe(load_config(keys, config_class_of=config_class_of))
    network = recipe.network(num_classes=CLASSES)
    step = build_train_step(recipe, network, steps=1000, steps_per_epoch=1000, cards=1)
    images, labels = batch()
    images, targets = ms.Tensor(images), ms.Tensor(np.eye(CLASSES, dtype=np.float32)[labels])
    return lambda: float(step(images, targets)[0].asnumpy())


def torchs():
    """The official network, from a clone of its repository on the path."""
    import torch
    from bit_pytorch.models import ResNetV2

    network = ResNetV2([3, 4, 6, 3], 1, head_size=CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.003, momentum=0.9)
    loss_of = torch.nn.CrossEntropyLoss()
    images, labels = map(torch.from_numpy, batch())

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def mindcvs():
    """mindcv's BiT_resnet50 in graph mode, with MindSpore's own train step and momentum."""
    import mindspore as ms
    from mindcv.models import create_model
    from mindspore import nn

    ms.set_context(mode=ms.GRAPH_MODE)
    network = create_model("BiT_resnet50", num_classes=CLASSES)
    optimizer = nn.Momentum(network.trainable_params(), learning_rate=0.003, momentum=0.9)
    with_loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
    step = nn.TrainOneStepCell(with_loss, optimizer).set_train()
    images, labels = batch()
    images, labels = ms.Tensor(images), ms.Tensor(labels, ms.int32)
    return lambda: float(step(images, labels).asnumpy())


def main():
    flags = parser(__doc__)
    flags.add_argument("--torch_python", help="the Python of an environment with torch 2.13.0")
    flags.add_argument("--big_transfer", type=Path, help="a clone of google-research/big_transfer")
    flags.add_argument("--mindcv_packages", type=Path, help="the folder mindcv 0.3.0 was installed into")
    flags.add_argument("--turns", type=int, default=11, help="counted steps of each (default 11)")
    flags.add_argument("--serve", choices=["ours", "torch", "mindcv"], help=argparse.SUPPRESS)
    own = flags.parse_args()
    if own.serve:
        serve({"ours": ours, "torch": torchs, "mindcv": mindcvs}[own.serve]())
        return 0
    if not (own.torch_python and own.big_transfer and own.mindcv_packages):
        flags.error("--torch_python, --big_transfer and --mindcv_packages are needed")

    def peer(python: str, role: str, path: Path | None = None) -> Peer:
        env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
        if path is not None:
            env["PYTHONPATH"] = str(path.resolve())
        return Peer([python, "-m", "benchmarks.bit_train_step", "--serve", role], env)

    peers = {
        "quartet": peer(sys.executable, "ours"),
        "pytorch": peer(own.torch_python, "torch", own.big_transfer),
        "mindcv": peer(sys.executable, "mindcv", own.mindcv_packages),
    }
    seconds = take_turns(peers, steps=own.turns)
    ratio = {name: spread(ratios(seconds, "quartet", name), 3) for name in BARS}
    record = write_record(
        RECORDS / "bit_train_step.json",
        question=f"seconds of one BiT R50x1 training step, {SIDE}x{SIDE}, batch {BATCH}, float32, CPU",
        command="python -m benchmarks.bit_train_step --torch_python ... --big_transfer ... "
        "--mindcv_packages ...",
        versions={
            "torch": version_of("torch", python=own.torch_python),
            "mindcv": version_of("mindcv", python=sys.executable, path=own.mindcv_packages),
        },
        seconds={name: spread(values, 3) for name, values in seconds.items()},
        ratio=ratio,
        bars=BARS,
        bars_met=all(ratio[name]["median"] <= bar for name, bar in BARS.items()),
    )
    report(seconds, ratio)
    return 0 if record["bars_met"] else 1


if __name__ == "__main__":
    end_with(main)
