# SPDX-License-Identifier: Apache-2.0
"""Does the 1-bit network learn? Against its real-valued twin, and against the official PyTorch code.

    git clone https://github.com/liuzechun/Bi-Real-net
    python3.11 -m venv torch_venv && torch_venv/bin/pip install torch==2.13.0 -r requirements.txt
    python -m benchmarks.binary_twin --data DIR --torch_python torch_venv/bin/python --official Bi-Real-net

Trains by configs/bireal/tiny_imagenet.yaml, for each seed: the binary network; the same blocks with ReLU and
real weights; and the official code's blocks put together with the same sizes and trained in PyTorch on the
very same batches, with the same optimizer and rates. Each is evaluated on all validation images after the
last epoch. A run that is finished already is not repeated. Writes benchmarks/records/binary_twin.json. The
bars: the binary network reaches at least 80 % of the twin's top-1, and the official one is not better by more
than 1 point (means over the seeds).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, version_of, write_record

CONFIG = "bireal/tiny_imagenet.yaml"
RECORD = RECORDS / "binary_twin.json"
SHARE, POINTS = 0.8, 1.0
OURS = {"binary": {}, "twin": {"activation": "relu", "binary_weights": "false"}}


def official_network(folder: Path, block_units: list[int], widths: list[int], num_classes: int):
    """The official stem, blocks and classifier, with other sizes than those it has written in."""
    sys.path.insert(0, str(folder / "pytorch_implementation" / "BiReal18_34"))
    import birealnet
    from torch import nn

    class Network(birealnet.BiRealNet):
        def __init__(self):
            nn.Module.__init__(self)
            self.inplanes = widths[0]
            self.conv1 = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            for stage, (units, width) in enumerate(zip(block_units, widths, strict=True)):
                layer = self._make_layer(birealnet.BasicBlock, width, units, stride=2 if stage else 1)
                setattr(self, f"layer{stage + 1}", layer)
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(widths[-1], num_classes)

    return Network()


def train_official(folder: Path, config: dict[str, Any], data: str, seed: int, output: Path) -> None:
    """Runs in PyTorch's environment; src.data needs no MindSpore."""
    import torch

    from src.data.batches import EvalBatches, TrainBatches
    from src.data.crops import PictureCrops
    from src.data.order import Order
    from src.data.preparation import Preparation
    from src.data.sources import open_split

    torch.manual_seed(seed)
    side, interpolation = config["image_size"], config["interpolation"]
    images = open_split(data, "train")
    train = TrainBatches(
        Order(len(images), batch_size=config["batch_size"], seed=seed),
        PictureCrops(
            images, side, crop_area=config["crop_area"], crop_ratio=config["crop_ratio"],
            interpolation=interpolation, flip=config["flip"],
        ),
        label_smoothing=config["label_smoothing"],
    )  # fmt: skip
    how = Preparation(side, config["image_mean"], config["image_std"], "centre", interpolation)
    test = EvalBatches(open_split(data, "test"), how, batch_size=250, normalised=False)
    mean, std = torch.tensor(config["image_mean"]), torch.tensor(config["image_std"])

    def pixels(images):
        return ((torch.from_numpy(images).float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    network = official_network(folder, config["block_units"], config["widths"], len(train.class_names))
    optimizer = torch.optim.Adam(network.parameters(), lr=config["lr"])
    steps, began = round(config["epochs"] * len(train)), time.monotonic()
    for step, (images, targets) in enumerate(train.batches(0, steps)):
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * (1 - step / steps)
        log_probabilities = torch.log_softmax(network(pixels(images)), dim=1)
        loss = -(torch.from_numpy(targets) * log_probabilities).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step}/{steps}  loss {loss.item():.3f}", flush=True)
    network.eval()
    correct = count = 0
    with torch.no_grad():
        for images, labels, valid in test:
            predicted = network(pixels(images)[:valid]).argmax(1).numpy()
            correct, count = correct + int((predicted == labels[:valid]).sum()), count + valid
    final = {"top1": 100 * correct / count, "count": count}
    parameters = sum(p.numel() for p in network.parameters())
    result = {"final": final, "parameters": parameters, "wall_seconds": time.monotonic() - began}
    output.write_text(json.dumps(result))


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--data", required=True, type=Path, help="Tiny-ImageNet's 40 classes: train/, val/")
    flags.add_argument("--torch_python", help="the Python of an environment with torch 2.13.0")
    flags.add_argument("--official", type=Path, help="a clone of liuzechun/Bi-Real-net")
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--output_path", type=Path, default=Path("runs/binary_twin"))
    flags.add_argument("--serve", help=argparse.SUPPRESS)
    own = flags.parse_args()
    if own.serve:
        job = json.loads(own.serve)
        train_official(own.official, job["config"], str(own.data), job["seed"], Path(job["output"]))
        return 0
    if not (own.torch_python and own.official):
        flags.error("--torch_python and --official are needed")

    from benchmarks.runs import train
    from src.model_utils.config import read_yaml

    folder, data = own.output_path.resolve(), own.data.resolve()
    results = {name: [] for name in (*OURS, "official")}
    for seed in range(own.seeds):
        for name, keys in OURS.items():
            run = folder / f"{name}-{seed}"
            results[name].append(train(CONFIG, run, data_path=data, seed=seed, **keys))
        output = folder / f"official-{seed}.json"
        if not output.exists():
            job = {
                "config": read_yaml(folder / f"binary-{seed}" / "config.yaml"),
                "seed": seed,
                "output": str(output),
            }
            command = [
                own.torch_python, "-m", "benchmarks.binary_twin", "--data", str(data),
                "--official", str(own.official.resolve()), "--serve", json.dumps(job),
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True)
        results["official"].append(json.loads(output.read_text()))
    top1 = {name: [run["final"]["top1"] for run in runs] for name, runs in results.items()}
    mean = {name: statistics.mean(values) for name, values in top1.items()}
    record = write_record(
        RECORD,
        question="top-1 on 40 Tiny-ImageNet classes: 1-bit network, real-valued twin, official PyTorch",
        command="python -m benchmarks.binary_twin --data DIR --torch_python ... --official DIR",
        versions={"torch": version_of("torch", python=own.torch_python)},
        config=f"configs/{CONFIG}",
        epochs=results["binary"][0]["epochs"],
        images_evaluated=results["binary"][0]["final"]["count"],
        parameters={name: runs[0]["parameters"] for name, runs in results.items()},
        top1_percent={name: spread(values) for name, values in top1.items()},
        share_of_twin=spread([a / b for a, b in zip(top1["binary"], top1["twin"], strict=True)]),
        official_better_by_points=spread(
            [b - a for a, b in zip(top1["binary"], top1["official"], strict=True)]
        ),
        bars={"share_of_twin": SHARE, "official_better_by_points": POINTS},
        bars_met=mean["binary"] >= SHARE * mean["twin"] and mean["official"] - mean["binary"] <= POINTS,
    )
    print(json.dumps(record, indent=1))
    return 0 if record["bars_met"] else 1


if __name__ == "__main__":
    end_with(main)
