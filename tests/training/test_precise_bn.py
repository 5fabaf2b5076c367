# SPDX-License-Identifier: Apache-2.0
"""Statistics anew: the formula in float64, and what a run does with them at its end."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.checkpoint.file import read_checkpoint
from src.common.errors import UserError
from src.evaluation.evaluate import Evaluation
from src.evaluation.metrics import Totals
from src.layers.conv import dense
from src.layers.norm import batch_norm2d
from src.layers.pixels import Pixels
from src.model_utils.device_adapter import Device
from src.optim.groups import ParamRule
from src.training import evaluator, precise_bn
from src.training.precise_bn import reestimate_bn
from src.training.records import read_metrics
from src.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("graph_mode")

EPS = 1e-5


class TwoNorms(nn.Cell):
    """Normalised, through ReLU, and normalised again with another momentum."""

    def __init__(self):
        super().__init__()
        self.first = batch_norm2d(channels=3, momentum=0.25, eps=EPS)
        self.second = batch_norm2d(channels=3, momentum=1.0, eps=EPS)

    def construct(self, x):
        return self.second(ops.relu(self.first(x)))


def statistics(network):
    return np.stack(
        [[bn.moving_mean.asnumpy(), bn.moving_variance.asnumpy()] for bn in (network.first, network.second)]
    )


def oracle(pictures):
    """Mean and variance of both layers: mean of means, mean of variances + variance of means."""
    layers = [[], []]
    for x in pictures:
        x = (x.astype(np.float64) - 3) / 2
        for layer in layers:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            layer.append((mean, x.var((0, 1, 2), ddof=1)))
            x = np.maximum((x - mean) / np.sqrt(variance + EPS), 0)
    found = []
    for layer in layers:
        means, variances = np.array(layer).transpose(1, 0, 2)
        found.append((means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)))
    return np.array(found)


def draw(count):
    """uint8 batches (5, 4, 4, 3), each with brightness and contrast of its own, and targets."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 20 + 50 * i, (5, 4, 4, 3)).astype(np.uint8), np.zeros((5, 2), np.float32))
        for i in range(count)
    ]


INPUTS = Pixels((3, 3, 3), (2, 2, 2))


def test_the_statistics_are_those_of_all_batches_together_whatever_they_were_before():
    network, batches = TwoNorms(), draw(4)
    for start in (0.0, 1e9):
        for bn in (network.first, network.second):
            bn.moving_mean.set_data(ms.Tensor(np.full(3, start, np.float32)))
        reestimate_bn(network, INPUTS, batches)
        np.testing.assert_allclose(statistics(network), oracle([x for x, _ in batches]), rtol=2e-5)


def test_of_ghost_batches_a_batch_has_the_mean_of_its_splits_variances():
    network, batches = nn.SequentialCell(batch_norm2d(channels=3, ghost_batch=2)), draw(3)
    batches = [(images[:4], targets[:4]) for images, targets in batches]
    reestimate_bn(network, INPUTS, batches)
    means, variances = [], []
    for images, _ in batches:
        splits = [(images[split::2].astype(np.float64) - 3) / 2 for split in (0, 1)]
        means.append(np.mean([x.mean((0, 1, 2)) for x in splits], axis=0))
        variances.append(np.mean([x.var((0, 1, 2), ddof=1) for x in splits], axis=0))
    expected = np.mean(means, axis=0), np.mean(variances, axis=0) + np.var(means, axis=0)
    found = network[0].moving_mean.asnumpy(), network[0].moving_variance.asnumpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_ranks_count_alike(monkeypatch):
    batches, network, sums = draw(4), TwoNorms(), []
    reestimate_bn(network, INPUTS, batches)
    whole = statistics(network)

    def exchange(vector, *, size):
        assert size == 2
        sums.append(vector)
        return np.sum(sums, axis=0)

    monkeypatch.setattr(precise_bn, "sum_over_ranks", exchange)
    for half in (batches[:2], batches[2:]):
        reestimate_bn(network, INPUTS, half, size=2)
    np.testing.assert_allclose(statistics(network), whole, rtol=1e-6)


def test_batches_are_mixed_as_in_training():
    (images, targets), network = draw(2)[1], TwoNorms()
    partners, weights = np.array([1, 2, 3, 4, 0], np.int32), np.full(5, 0.5, np.float32)
    reestimate_bn(network, INPUTS, [(images, targets, partners, weights)])
    mixed = (images.astype(np.float64) + images[partners]) / 2
    np.testing.assert_allclose(statistics(network), oracle([mixed]), rtol=2e-5)


def test_a_network_without_any_is_refused_before_the_training(narrow_config, tiny_recipe):
    recipe = tiny_recipe(narrow_config(bn_reestimation_batches=2))
    recipe.network = lambda num_classes: dense(in_channels=2, out_channels=num_classes)
    recipe.param_rules = lambda: [ParamRule("all", ".*", 0.0)]
    with pytest.raises(UserError, match="no batch normalisation: leave bn_reestimation_batches at 0"):
        Trainer(recipe, device=Device("CPU"))


KEYS = {"train_steps": 5, "ema_decay": 0.5, "bn_reestimation_batches": 3, "log_every": 5, "tta": "flip"}


def evaluations(run_dir):
    return [r for r in read_metrics(run_dir / "metrics.jsonl") if "eval_top1" in r]


@pytest.fixture
def finished(start, tmp_path):
    return tmp_path / "run", start(tmp_path / "run", **KEYS)


def test_a_finished_run_does_it_once(finished, resume):
    run_dir, summary = finished
    before, after = evaluations(run_dir)
    assert before["step"] == after["step"] == 5
    assert before["eval_loss"] != after["eval_loss"] == summary["final"]["loss"]
    last = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    assert last.meta["progress"]["bn_reestimated"]
    changed = {n for n, v in last.network_weights().items() if not np.array_equal(v, last.arrays[n])}
    assert {"bn.moving_mean", "bn.moving_variance"} <= changed
    assert "eval_loss_plain" in after and "eval_loss_plain" not in before, "the last one alone has all views"
    line = "batch normalisation anew over 3 batches: top-1 {:.2f} %, before {:.2f} %"
    said = line.format(after["eval_top1_plain"], before["eval_top1"])
    assert said in (run_dir / "train.log").read_text()

    files = [path for path in run_dir.rglob("*") if path.suffix in (".ckpt", ".jsonl")]
    bytes_before = {path: path.read_bytes() for path in files}
    assert resume(run_dir)["final"] == summary["final"]
    assert {path: path.read_bytes() for path in files} == bytes_before


def test_a_process_that_is_killed_before_it_does_it_when_resumed(
    finished, start, resume, tmp_path, monkeypatch
):
    straight, summary = finished

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "reestimate_bn", killed)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "cut", **KEYS)
    assert not read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.ckpt").meta["progress"][
        "bn_reestimated"
    ]
    assert resume(tmp_path / "cut")["final"] == summary["final"]
    assert evaluations(tmp_path / "cut") == evaluations(straight)
    found, expected = (
        read_checkpoint(run / "checkpoints" / "last.ckpt").arrays for run in (tmp_path / "cut", straight)
    )
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("better", [True, False])
def test_the_best_may_be_either(start, tmp_path, monkeypatch, better):
    figures = iter([50.0, 60.0 if better else 40.0])

    def evaluate(*_, **__):
        metrics = {"top1": next(figures), "loss": 1.0, "count": 70}
        return Evaluation(metrics, Totals(4), [])

    monkeypatch.setattr(evaluator, "evaluate_network", evaluate)
    summary = start(tmp_path / "run", **KEYS | {"ema_decay": 0.0})
    assert summary["final"]["top1"] == (60 if better else 40)
    assert summary["best"]["top1"] == (60 if better else 50)
    folder = tmp_path / "run" / "checkpoints"
    best, last = (read_checkpoint(folder / f"{name}.ckpt") for name in ("best", "last"))
    assert last.meta["progress"]["bn_reestimated"]
    assert best.meta["progress"]["bn_reestimated"] is better
    same = np.array_equal(best.arrays["bn.moving_mean"], last.arrays["bn.moving_mean"])
    assert same is better
