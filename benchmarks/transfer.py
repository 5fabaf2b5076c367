# SPDX-License-Identifier: Apache-2.0
"""Does transfer help? A small ResNetV2 pre-trained on Tiny-ImageNet classes, against one from scratch.

    python -m benchmarks.transfer --source DIR --target DIR [--pretrained FILE] [--seeds 3]

Pre-trains by configs/bit/tiny_imagenet.yaml on the class folders in --source (train/ and val/), unless
--pretrained is a checkpoint of such a run. Then trains by configs/bit/tiny_cifar10.yaml on CIFAR-10 in
--target, with 10 and with 100 images a class, each from the pre-trained weights and from new ones: the same
images, order, augmentation and number of steps; only the rate is each start's own. Every run is `train.py`,
and is evaluated once, at its end, on all test images. A run that is finished already is not repeated. Writes
benchmarks/records/transfer.json. The bar: transfer is at least 8 points of top-1 better in both.
"""

import json
from pathlib import Path

from benchmarks.record import RECORDS, end_with, parser, spread, write_record
from benchmarks.runs import train

RECORD = RECORDS / "transfer.json"
# images a class -> batches of 50, and the rate of each start (tried: 0.003 to 0.1)
STEPS = {10: 200, 100: 300}
RATES = {10: {"transfer": 0.01, "scratch": 0.05}, 100: {"transfer": 0.03, "scratch": 0.05}}
BAR_POINTS = 8


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--source", required=True, type=Path, help="Tiny-ImageNet's 40 classes: train/, val/")
    flags.add_argument("--target", required=True, type=Path, help="the folder of cifar-10-batches-bin")
    flags.add_argument("--pretrained", type=Path, help="a checkpoint of tiny_imagenet.yaml")
    flags.add_argument("--seeds", type=int, default=3, help="few-shot choices (default 3)")
    flags.add_argument("--output_path", type=Path, default=Path("runs/transfer"))
    flags.add_argument("--record", type=Path, default=RECORD)
    own = flags.parse_args()
    folder = own.output_path.resolve()
    checkpoint = own.pretrained
    if checkpoint is None:
        train("bit/tiny_imagenet.yaml", folder / "pretraining", data_path=own.source.resolve())
        checkpoint = folder / "pretraining" / "checkpoints" / "best.ckpt"
    pretraining = json.loads((checkpoint.parent.parent / "summary.json").read_text())

    results = {}
    for shots, steps in STEPS.items():
        top1 = {start: [] for start in RATES[shots]}
        for seed in range(own.seeds):
            shared = {
                "data_path": own.target.resolve(), "examples_per_class": shots, "few_shot_seed": seed,
                "seed": seed, "train_steps": steps,
            }  # fmt: skip
            for start, rate in RATES[shots].items():
                keys = {"lr": rate} | (
                    {"pretrained_path": checkpoint.resolve()} if start == "transfer" else {}
                )
                summary = train("bit/tiny_cifar10.yaml", folder / f"{start}-{shots}-{seed}", **shared, **keys)
                assert summary["final"]["count"] == 10_000
                top1[start].append(summary["final"]["top1"])
        gains = [a - b for a, b in zip(top1["transfer"], top1["scratch"], strict=True)]
        results[f"{shots}_images_a_class"] = {
            **{f"{start}_top1_percent": spread(values) for start, values in top1.items()},
            "gain_points": spread(gains),
        }
    met = all(result["gain_points"]["mean"] >= BAR_POINTS for result in results.values())
    write_record(
        own.record,
        question="top-1 on CIFAR-10 from few images: pre-trained on 40 Tiny-ImageNet classes, or not",
        command="python -m benchmarks.transfer --source DIR --target DIR",
        parameters=pretraining["parameters"],
        pretraining={
            "top1_percent": pretraining["best"]["top1"], "epochs": pretraining["epochs"],
            "seconds": pretraining["wall_seconds"],
        },
        steps=STEPS, rates=RATES,
        results=results,
        bar_points=BAR_POINTS,
        bar_met=met,
    )  # fmt: skip
    print(json.dumps(results, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    end_with(main)
