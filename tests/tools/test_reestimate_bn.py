# SPDX-License-Identifier: Apache-2.0
"""The command does to a checkpoint what a run does at its end, and nothing else."""

import json
import shutil

import numpy as np
import pytest
from mindspore import nn, ops

from src.checkpoint.file import read_checkpoint
from src.layers.conv import conv2d, dense
from src.layers.init import initialise, torch_default
from src.layers.norm import batch_norm2d
from src.model_utils.config import load_config
from src.tools import reestimate_bn
from src.training import evaluator, precise_bn, session
from src.training.records import read_metrics
from src.zoo import config_class_of, create_recipe, recipe_class_of

pytestmark = pytest.mark.usefixtures("graph_mode", "plain_logger")


class Net(nn.Cell):
    """As little to compile as has what the command needs."""

    def __init__(self, *, num_classes):
        super().__init__()
        self.conv = conv2d(in_channels=3, out_channels=4, kernel_size=3, stride=2)
        self.bn = batch_norm2d(channels=4)
        self.linear = dense(in_channels=4, out_channels=num_classes, bias=False)
        initialise(self, seed=0, weight=torch_default)

    def construct(self, x):
        return self.linear(ops.relu(self.bn(self.conv(x))).mean((2, 3)))


def test_the_command_does_what_a_run_does_at_its_end(data_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        recipe_class_of("resnet9"), "network", lambda self, *, num_classes: Net(num_classes=num_classes)
    )
    keys = {
        "model": "resnet9", "data_path": str(data_path), "device_target": "CPU",
        "batch_size": 40, "eval_batch_size": 40, "epochs": 1.0, "warmup_epochs": 0.4, "lr": 0.1,
        "ema_decay": 0.5, "mixup_alpha": 0.2, "bn_reestimation_batches": 3,
    }  # fmt: skip
    run_dir, plain, output = tmp_path / "run", tmp_path / "plain.ckpt", tmp_path / "new.ckpt"
    expected = run_dir / "checkpoints" / "last.ckpt"

    def kept_before(*given, **settings):
        shutil.copy(expected, plain)
        precise_bn.reestimate_bn(*given, **settings)

    monkeypatch.setattr(evaluator, "reestimate_bn", kept_before)
    session.start(load_config(keys, config_class_of=config_class_of), create_recipe, run_dir=run_dir)
    before, after = [r for r in read_metrics(run_dir / "metrics.jsonl") if "eval_top1" in r]
    words = ["--checkpoint_path", str(plain), "--output", str(output), "--batches", "3"]
    words += ["--data_path", str(data_path)]  # the checkpoint has left its run's folder
    reestimate_bn.main(words)
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("top1", "loss"):
        assert facts[f"{name}_before"] == before[f"eval_{name}"]
        assert facts[f"{name}_after"] == after[f"eval_{name}"]
    assert facts["loss_before"] != facts["loss_after"]
    assert (facts["step"], facts["batches"], facts["averaged_weights"]) == (5, 3, True)
    old, new, like = (read_checkpoint(path) for path in (plain, output, expected))
    assert new.arrays.keys() == like.arrays.keys()
    for name, value in like.arrays.items():
        np.testing.assert_array_equal(new.arrays[name], value, err_msg=name)
    changed = {name for name, value in old.arrays.items() if not np.array_equal(value, new.arrays[name])}
    assert changed and all(name.startswith("ema.") and ".moving_" in name for name in changed)
    assert not old.meta["progress"]["bn_reestimated"]
    assert new.meta == old.meta | {"progress": old.meta["progress"] | {"bn_reestimated": True}}

    reestimate_bn.main([*words, "--raw_weights"])
    raw = read_checkpoint(output)
    changed = {name for name, value in old.arrays.items() if not np.array_equal(value, raw.arrays[name])}
    assert changed and all(not name.startswith("ema.") and ".moving_" in name for name in changed)
