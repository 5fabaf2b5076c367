# SPDX-License-Identifier: Apache-2.0
"""Folders such as finished runs leave, with figures that a test chooses."""

import json


def fake_run(folder, *, seed=0, top1=(50.0, 60.0), speed=100.0, views=None, plain=None, keys=None):
    """A run of two or more epochs of 1,000 images in 10 batches with these accuracies, the last one final.

    `plain`: the last one of the plain view, where the other is of several. `keys`: of its config.
    """
    folder.mkdir(parents=True)
    keys = {"model": "resnet9", **(keys or {}), "seed": seed}
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in keys.items()))
    records = []
    for epoch, accuracy in enumerate(top1, start=1):
        place = {"images": 1000 * epoch, "step": 10 * epoch, "epoch": float(epoch)}
        records.append({**place, "loss": 1.0, "lr": 0.1, "images_per_second": speed})
        records.append({**place, "eval_top1": accuracy, "eval_loss": 1.0, "eval_count": 200})
    further = {} if plain is None else {"top1_plain": plain}
    records[-1] |= {f"eval_{name}": value for name, value in further.items()}
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    for kind, accuracy in (views or {}).items():
        (folder / "views").mkdir(exist_ok=True)
        (folder / "views" / f"{kind}.json").write_text(json.dumps({"views": kind, "top1": accuracy}))
    summary = {
        "model": "resnet9", "parameters": 1200, "updates": 20,
        "final": {"top1": top1[-1], "loss": 1.0, "count": 200, **further},
        "best": {"epoch": 1.0, "top1": max(top1)},
        "images_per_second": speed, "peak_memory_mib": 500, "damaged_images": {"train": 0, "test": 0},
        "device": {"target": "CPU", "cards": 1},
        "recall_by_class": {"red": 1.0, "green": 2.0, "blue": 3.0},
        "images": 1000 * len(top1), "batches": 10 * len(top1), "epochs": float(len(top1)),
        "wall_seconds": 120.0, "seed": seed,
        "environment": {"cpu": "a processor", "cpu_count": 1 + seed % 2, "mindspore": "2.10.0"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
