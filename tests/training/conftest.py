# SPDX-License-Identifier: Apache-2.0
"""What the tests of training share: clean compilation, a linear network with its oracle, a narrow config."""

import gc

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.layers.losses import CrossEntropy
from src.layers.pixels import Pixels
from src.model_utils.config import load_config
from src.optim.groups import ParamGroup
from src.optim.optimizers import SGD
from src.training import report, session
from src.training.loss_scale import LossScale
from src.training.train_step import TrainStep
from src.zoo import config_class_of
from tests.helpers.cut_runs import CASES
from tests.helpers.tiny import TinyRecipe


@pytest.fixture(autouse=True)
def _no_cells_of_earlier_tests():
    """A cell that is collected while a like one is in use makes MindSpore compile that one again."""
    gc.collect()


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing them takes as long as a tiny training. A fixture of a module draws them: test_trainer.py's."""
    for draw in ("learning_curves", "write_pictures", "write_page"):
        monkeypatch.setattr(report, draw, lambda *_, **__: None)


class Linear(nn.Cell):
    """x W + b, (N, 5) -> (N, 3)."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(7)
        self.weight = ms.Parameter(rng.normal(size=(5, 3)).astype(np.float32), name="weight")
        self.bias = ms.Parameter(rng.normal(size=3).astype(np.float32), name="bias")

    def construct(self, x):
        return ops.matmul(x, self.weight) + self.bias


def linear_groups(network):
    return [
        ParamGroup("weights", (network.weight,), weight_decay=0.01),
        ParamGroup("biases", (network.bias,), weight_decay=0.0, lr_multiplier=2.0),
    ]


class LinearOracle:
    """The train step of `Linear` with Nesterov's momentum, written out in float64."""

    def __init__(self, *, rates, momentum=0.9, accumulate_steps=1, clip_norm=0.0):
        start = Linear()
        self.weights = [p.asnumpy().astype(np.float64) for p in (start.weight, start.bias)]
        self.velocity = [np.zeros_like(w) for w in self.weights]
        self.total = [np.zeros_like(w) for w in self.weights]
        self.rates, self.momentum = rates, momentum
        self.accumulate_steps, self.clip_norm = accumulate_steps, clip_norm
        self.batches = self.updates = 0

    def gradients(self, x, targets):
        weight, bias = self.weights
        logits = x.astype(np.float64) @ weight + bias
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        loss = -(targets * np.log(probabilities)).sum(axis=1).mean()
        error = (probabilities - targets) / len(x)
        return loss, [x.T @ error, error.sum(axis=0)]

    def __call__(self, x, targets):
        """One batch; the loss and the norm of the mean gradient so far."""
        loss, gradients = self.gradients(x, targets)
        self.total = [t + g / self.accumulate_steps for t, g in zip(self.total, gradients)]
        norm = np.sqrt(sum((t**2).sum() for t in self.total))
        self.batches += 1
        if self.batches % self.accumulate_steps == 0:
            self._update(norm)
        return loss, norm

    def _update(self, norm):
        factor = self.clip_norm / norm if 0 < self.clip_norm < norm else 1.0
        for i, (decay, multiplier) in enumerate(((0.01, 1.0), (0.0, 2.0))):
            gradient = self.total[i] * factor + decay * self.weights[i]
            self.velocity[i] = self.momentum * self.velocity[i] + gradient
            rate = self.rates[min(self.updates, len(self.rates) - 1)] * multiplier
            self.weights[i] = self.weights[i] - rate * (gradient + self.momentum * self.velocity[i])
        self.updates += 1
        self.total = [np.zeros_like(t) for t in self.total]


@pytest.fixture
def linear_oracle():
    return LinearOracle


@pytest.fixture
def linear_step(graph_mode):
    """Builds a TrainStep around a new `Linear` network."""

    def build(*, rates, optimizer=None, loss=None, loss_scale=None, ema=None, **settings):
        network = Linear()
        groups = linear_groups(network)
        return TrainStep(
            network,
            Pixels((0, 0, 0), (1, 1, 1)),
            loss or CrossEntropy(),
            optimizer(groups) if optimizer else SGD(groups, momentum=0.9, nesterov=True),
            rates=rates,
            loss_scale=loss_scale or LossScale("none"),
            ema=ema(network) if ema else None,
            **settings,
        )

    return build


@pytest.fixture
def linear_batch():
    """The batch of a number: x (count, 5) float32 and soft targets (count, 3) float32."""

    def draw(number, *, count=6):
        rng = np.random.default_rng([11, number])
        x = rng.normal(size=(count, 5)).astype(np.float32)
        return x, rng.dirichlet(np.ones(3), size=count).astype(np.float32)

    return draw


@pytest.fixture
def call():
    """Calls a train step with numpy arrays: loss, loss scale, overflow, gradient norm as floats."""

    def run(step, batch):
        return tuple(float(value.asnumpy()) for value in step(*map(ms.Tensor, batch)))

    return run


@pytest.fixture
def state():
    """All parameters of a cell by name, as copies."""
    return lambda cell: {p.name: p.asnumpy().copy() for p in cell.get_parameters()}


@pytest.fixture(scope="session")
def narrow_config(data_path):
    """A config of ResNet9 with few channels: 5 batches of 40 an epoch of the drawn data set."""

    def build(**keys):
        settings = {
            "model": "resnet9",
            "widths": [4, 4, 8, 8],
            "data_path": str(data_path),
            "device_target": "CPU",
            "batch_size": 40,
            "eval_batch_size": 40,
            "lr_base_batch": 40,
            "lr_scale_rule": "linear",
            "lr": 0.1,
            "epochs": 2.0,
            "warmup_epochs": 0.4,
            "log_every": 2,
        }
        return load_config({**settings, **keys}, config_class_of=config_class_of)

    return build


@pytest.fixture(scope="session")
def tiny_recipe():
    """A recipe class of a network that compiles fast; `watch` is called before every batch."""
    return lambda config, watch=None: TinyRecipe(config, watch)


@pytest.fixture
def start(narrow_config, tiny_recipe, quartet_log):
    """start(run_dir, watch=None, **keys): a run of the tiny network to its end; the summary."""

    def train(run_dir, *, watch=None, **keys):
        return session.start(narrow_config(**keys), lambda c: tiny_recipe(c, watch), run_dir=run_dir)

    return train


@pytest.fixture
def resume(tiny_recipe, quartet_log):
    """resume(run_dir, watch=None, **keys): continues a run of the tiny network, as train.py --resume does."""

    def train(run_dir, *, watch=None, **keys):
        gc.collect()
        config = load_config(keys, config_class_of=config_class_of, config_path=run_dir / "config.yaml")
        return session.resume(config, lambda c: tiny_recipe(c, watch), run_dir=run_dir)

    return train


@pytest.fixture(scope="session")
def straight_runs(tmp_path_factory):
    """The folders of uncut runs by case, made when first asked for."""
    return tmp_path_factory.mktemp("straight"), {}


@pytest.fixture
def straight(straight_runs, start):
    """straight(case): the folder of the uncut run of that case (tests/helpers/cut_runs.py)."""
    folder, made = straight_runs

    def run(case):
        if case not in made:
            start(folder / case, **CASES[case])
            made[case] = folder / case
        return made[case]

    return run
