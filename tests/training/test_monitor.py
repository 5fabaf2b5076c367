# SPDX-License-Identifier: Apache-2.0
"""What a monitor says is in the records, of the weights in training, and outlives a stop."""

import os
import signal
from itertools import pairwise
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from src.checkpoint.file import read_checkpoint
from src.model_utils.device_adapter import Device
from src.training.evaluator import Evaluator
from src.training.records import read_metrics
from src.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("graph_mode")

KEYS = {"ema_decay": 0.9, "epochs": 3.0, "eval_batch_size": 100, "keep_checkpoints": 9, "log_every": 1}


class SignMonitor:
    """Share of the convolution's weights that changed their sign since the last measurement."""

    def __init__(self, network):
        self.network = network
        self.memory = ms.Parameter(ms.Tensor(self._signs()), name="monitor.conv.weight", requires_grad=False)
        self.parameters = [self.memory]

    def _signs(self):
        return np.sign(self.network.conv.weight.asnumpy()).astype(np.int8)

    def measure(self, images):
        assert not self.network.training
        signs = self._signs()
        flips = 100 * np.mean(signs != self.memory.asnumpy())
        self.memory.set_data(ms.Tensor(signs))
        return {"bit_flips": float(flips), "images": float(len(images()))}


@pytest.fixture
def tiny_recipe(tiny_recipe):
    """The recipe of the other tests, watched."""

    def make(config, watch=None):
        recipe = tiny_recipe(config, watch)
        recipe.monitor = lambda network, inputs: SignMonitor(network)
        return recipe

    return make


def evaluations(run_dir):
    return [r for r in read_metrics(run_dir / "metrics.jsonl") if "eval_top1" in r]


def checkpoint(run_dir, name):
    return read_checkpoint(run_dir / "checkpoints" / f"{name}.ckpt")


@pytest.fixture
def straight(start, tmp_path):
    start(tmp_path / "straight", **KEYS)
    return tmp_path / "straight"


def test_flips_since_the_last_evaluation(straight, tiny_recipe, narrow_config):
    network = tiny_recipe(narrow_config()).network(num_classes=4)
    weights = [network.conv.weight.asnumpy()]
    weights += [checkpoint(straight, f"step_{n:08d}").arrays["conv.weight"] for n in (5, 10, 15)]
    expected = [100 * np.mean(np.sign(a) != np.sign(b)) for a, b in pairwise(weights)]
    records = evaluations(straight)
    assert [r["monitor_bit_flips"] for r in records] == expected
    assert min(expected) < max(expected)
    assert [r["monitor_images"] for r in records] == [70, 70, 70]
    assert not any("monitor_bit_flips" in r for r in read_metrics(straight / "metrics.jsonl") if "loss" in r)
    log = (straight / "train.log").read_text()
    for flips in expected:
        assert f"(70 images)  bit flips {flips:.2f} %  images 70.00 %" in log
    last = checkpoint(straight, "last")
    assert last.arrays["monitor.conv.weight"].dtype == np.int8
    assert not any(name.startswith("monitor") for name in last.network_weights(ema=False))


@pytest.mark.parametrize("step", [5, 8], ids=["where an evaluation is due", "between two"])
def test_a_stop_changes_nothing(start, resume, straight, tmp_path, step):
    def watch(current, *_):
        if current == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        start(tmp_path / "run", watch=watch, **KEYS)
    resume(tmp_path / "run")
    assert evaluations(tmp_path / "run") == evaluations(straight)
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == lines
    name = "monitor.conv.weight"
    found, expected = (checkpoint(run, "last").arrays[name] for run in (tmp_path / "run", straight))
    np.testing.assert_array_equal(found, expected)


def test_new_statistics_are_no_new_weights(start, tmp_path):
    start(tmp_path / "run", train_steps=5, bn_reestimation_batches=1)
    before, after = evaluations(tmp_path / "run")
    assert "monitor_bit_flips" in before
    assert not any(name.startswith("monitor") for name in after)


def test_rank_0_alone_measures_and_no_batch_is_read_unasked(tiny_recipe, narrow_config):
    recipe, read = tiny_recipe(narrow_config(**KEYS)), []
    asked = []
    recipe.monitor = lambda network, inputs: SimpleNamespace(
        parameters=[], measure=lambda images: asked.append(images) or {"share": 1.0}
    )
    recipe.eval_batches = lambda **where: read.append(where) or SimpleNamespace(numbers=range(3))
    step = SimpleNamespace(inputs=None, set_train=lambda mode: None, ema=None)
    evaluators = [
        Evaluator(recipe, None, step, num_classes=4, device=Device("CPU", rank, 2)) for rank in (0, 1)
    ]
    assert [e.measure() for e in evaluators] == [{"share": 1.0}, {}]
    assert len(asked) == 1 and callable(asked[0])
