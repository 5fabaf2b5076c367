# SPDX-License-Identifier: Apache-2.0
"""Every recipe as an Ascend card gets it, and that the check finds what a card cannot run."""

import json
import os
import sys
from pathlib import Path

import mindspore as ms
import pytest
from mindspore import nn, ops

from src.analysis.ascend_graphs import as_on_ascend, ascend_graphs
from src.analysis.ascend_report import as_text, faults, report
from src.analysis.graph_facts import compile_graph
from src.common.cli import run
from src.common.errors import UserError
from src.data.keys import DataKeys
from src.layers.build import network_keys
from src.layers.losses import CrossEntropy
from src.model_utils.config import load_config
from src.model_utils.device_adapter import get_device_num, set_up_device
from src.model_utils.modelarts.keys import CloudKeys
from src.model_utils.run_keys import RunKeys
from src.optim.keys import ScheduleKeys
from src.resnet9.network import ResNet9
from src.tools.ascend_check import main
from src.training.keys import LoopKeys
from src.zoo import config_class_of, create_network, recipe_class_of
from tests.helpers.smaller import SMALLER, kind_of, smaller
from tests.helpers.tiny import TinyNet

ROOT = Path(__file__).parents[2]
# Together they have every primitive of the others; those of accumulation and of THOR have tests below.
TELLING = {
    "configs/bireal/birealnet34_port.yaml",
    "configs/bireal/cifar10.yaml",
    "configs/bit/r101x3_cifar10_randaug.yaml",
    "configs/multigrain/resnet50_imagenet_momentum.yaml",
    "configs/resnet9/cifar10.yaml",
    "configs/resnet9/cpu/ladder/09_ema.yaml",
    "configs/resnet9/cpu/networks/cifarnet_muon.yaml",
}
# The host alone reads these, or the graphs get no more of them than shapes and numbers.
OF_THE_HOST = {
    name for group in (CloudKeys, RunKeys, ScheduleKeys, LoopKeys, DataKeys) for name in group.model_fields
} - {"mixup_alpha", "cutmix_alpha", "mixup_per_image", "label_smoothing"}


def settings(path):
    """(kind of model, key, value) of each key that a graph depends on; of numbers: 0, 1, none or others."""
    config = load_config({}, config_class_of=config_class_of, config_path=ROOT / path)
    kind = kind_of(config.model)
    for key, value in config.model_dump(exclude={"model", *SMALLER[kind], *OF_THE_HOST}).items():
        told = isinstance(value, str) or value in (0, 1, ())
        yield kind, key, str(value) if told else "others"


def chosen():
    """Recipes that have every setting of the others: TELLING, and each time the one that adds most."""
    paths = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))
    told = {path: set(settings(path)) for path in paths}
    found = sorted(TELLING)
    missing = set().union(*told.values()).difference(*(told[path] for path in found))
    while missing:
        found.append(max(paths, key=lambda path: len(told[path] & missing)))
        missing -= told[found[-1]]
    return found


CONFIGS = chosen()
RESNET9 = ["configs/resnet9/quickstart.yaml", "--widths", "[4, 4, 8, 8]", "--batch_size", "6"]
pytestmark = pytest.mark.usefixtures("plain_logger", "graph_mode")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def check(capsys):
    """check(config, --key, value ...) -> (exit code, the JSON object, the lines of standard error)."""

    def call(*words):
        code = main([*map(str, words), "--images", "2000", "--json"])
        out, err = capsys.readouterr()
        return code or 0, json.loads(out.splitlines()[-1]), err.splitlines()

    return call


def test_the_telling_recipes_are_there():
    assert set(CONFIGS) > TELLING
    assert {Path(path).parts[1] for path in TELLING} == {Path(path).parts[1] for path in CONFIGS}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=() if path in TELLING else pytest.mark.slow) for path in CONFIGS]
)
def test_every_recipe_is_documented_for_ascend(check, path):
    code, found, errors = check(path, *smaller(path))
    assert (code, found["faults"], errors) == (0, [], [])
    assert all("Ascend" in row["platforms"] and row["where"] for row in found["primitives"])
    named = {row["primitive"] for row in found["primitives"]}
    assert {"Conv2D", "Conv2DBackpropFilter", "AllReduce", "AllFinite"} <= named
    # What stands for them on a CPU.
    assert not named & {"IsFinite", "AdaptiveMaxPool2D"}
    assert ("GroupNorm" in named, "BatchNorm" in named) == (
        (True, False) if "/bit/" in path else (False, True)
    )
    for name, graph in found["graphs"].items():
        trains = name in ("train", "factors")
        assert (graph["operators"] > 0, len(graph["collectives"]) > 0) == (True, trains)
    if path == "configs/resnet9/cifar10.yaml":
        # In float32 the trained weights, the running statistics, and a flag and a loss, once.
        network = create_network("resnet9", num_classes=10, widths=(4, 4, 8, 8))
        sent = sum(one["bytes"] for one in found["graphs"]["train"]["collectives"])
        assert sent == sum(p.nbytes for p in network.get_parameters()) + 4 + 4


class _CpuOnly(nn.Cell):
    """x as it is, by way of an operator that is documented for CPUs alone."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.operator = ops.operations.math_ops.Fmax()

    def construct(self, x):
        return self.operator(x, x)


class _InLoss(nn.Cell):
    def __init__(self):
        super().__init__(auto_prefix=False)
        self.loss, self.planted = CrossEntropy(), _CpuOnly()

    def construct(self, logits, targets):
        return self.planted(self.loss(logits, targets))


class _InEvaluation(nn.Cell):
    def __init__(self, inputs):
        super().__init__(auto_prefix=False)
        self.inputs, self.planted = inputs, _CpuOnly()

    def construct(self, images, partners=None, weights=None):
        x = self.inputs(images, partners, weights)
        return x if self.training else self.planted(x)


class _WhenFolded(ResNet9):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.planted, self.folded = _CpuOnly(), False

    def fold(self):
        self.folded = True

    def construct(self, x):
        return super().construct(self.planted(x) if self.folded else x)


class _Planted(recipe_class_of("resnet9")):
    """With a CPU's operator in each of the three graphs, in another place of each."""

    def network(self, *, num_classes):
        keys = {name: getattr(self.config, name) for name in network_keys(ResNet9)}
        return _WhenFolded(num_classes=num_classes, **keys)

    def inputs(self):
        return _InEvaluation(super().inputs())

    def loss(self, *, rank=0, size=1):
        return _InLoss()


@pytest.fixture(scope="module")
def planted():
    keys = {"widths": [4, 4, 8, 8], "batch_size": 6, "eval_batch_size": 6}
    config = load_config(keys, config_class_of=config_class_of, config_path=ROOT / RESNET9[0])
    set_up_device("CPU")
    return ascend_graphs(_Planted(config), num_classes=10, images=2000, picture_size=32, cards=8)


def test_a_planted_operator_is_found_in_each_graph(planted):
    found = report(planted)
    scopes = {"train": "loss-_InLoss/", "eval": "inputs-_InEvaluation/", "export": "network-_WhenFolded/"}
    known = "documented for CPU, not for Ascend, by mindspore.ops.operations.math_ops.Fmax"
    assert faults(planted, found["primitives"]) == [
        f"Fmax in the {name} graph, at Default/{scope}planted-_CpuOnly: {known}"
        for name, scope in scopes.items()
    ]
    (row,) = (row for row in found["primitives"] if row["primitive"] == "Fmax")
    assert row["calls"] == {"train": 1, "eval": 1, "export": 1}


def test_a_fault_is_a_line_and_exit_code_2(planted, monkeypatch, capsys):
    monkeypatch.setattr("src.analysis.ascend_graphs.ascend_graphs", lambda *_, **__: planted)
    monkeypatch.setattr(sys, "argv", ["ascend_check.py", *RESNET9])
    with pytest.raises(SystemExit) as end:
        run(main)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert [line.split(",")[0].split(" at ")[0] for line in err.splitlines()] == [
        f"error: Fmax in the {name} graph" for name in planted
    ]
    assert any(line.split() == ["Fmax", "1", "1", "1", "CPU"] for line in _without_where(out))
    assert "primitives are documented" not in out


def _without_where(text):
    return [line.partition(" (")[0] for line in text.splitlines()]


def test_an_operator_that_nobody_documents_is_a_fault():
    class Unheard(ops.PrimitiveWithInfer):
        def infer_shape(self, shape):
            return shape

        def infer_dtype(self, dtype):
            return dtype

    class Network(nn.Cell):
        def __init__(self):
            super().__init__()
            self.operator = Unheard("Unheard")

        def construct(self, x):
            return self.operator(x)

    graphs = {"eval": compile_graph(Network(), ms.Tensor(shape=(2,), dtype=ms.float32))}
    (line,) = faults(graphs, report(graphs)["primitives"])
    assert line.startswith("Unheard in the eval graph, at Default: no platform is documented")


def test_synchronised_batch_normalisation_is_sent_too(check):
    code, found, errors = check(*RESNET9, "--sync_bn", "true", "--accumulate_steps", 2)
    assert (code, errors) == (0, [])
    assert "EqScalar" in {row["primitive"] for row in found["primitives"]}
    assert len(found["graphs"]["train"]["collectives"]) > 8  # one a layer forward, one backward
    assert found["graphs"]["eval"]["collectives"] == found["graphs"]["export"]["collectives"] == []


class _Tiny(recipe_class_of("resnet9")):
    """Of a network with one convolution and one dense layer."""

    def network(self, *, num_classes):
        return TinyNet(num_classes=num_classes, seed=0)


def test_what_the_cards_send_of_factors_and_inverses(check, monkeypatch):
    monkeypatch.setattr("src.zoo.create_recipe", _Tiny)
    words = ["--optimizer", "thor", "--thor_balanced", "true", "--thor_block", 9, "--thor_every", 10]
    code, found, errors = check(*RESNET9, *words)
    assert (code, errors) == (0, [])
    calls = {row["primitive"]: row["calls"] for row in found["primitives"]}
    assert not calls.keys() & {"Cholesky", "MatrixTriangularSolve"}  # of a CPU
    for name in ("MatrixInverse", "AllGather", "Im2Col"):
        assert calls[name] == {"train": 0, "factors": 1, "eval": 0, "export": 0}
    # The convolution's inputs have 27 rows, its outputs 4, the classifier's 4 and 10: 3, 1, 1 and 2 blocks.
    reduced = 4 * (3 * 9**2 + 4**2 + 4**2 + 2 * 5**2) + 4  # and how often the damping was raised
    gathered = 4 * 8 * 9**2  # 7 blocks and an empty one: one for each card
    assert found["factors"] == {
        "every": 10,
        "collectives": {
            "AllGather": {"count": 1, "bytes": gathered},
            "AllReduce": {"count": 1, "bytes": reduced},
        },
        "messages": 0.2,
        "bytes": (gathered + reduced) / 10,
    }
    line = "factors, in 1 update of 10: AllGather x 1, 2.531 KiB; AllReduce x 1, 1.273 KiB more than train; "
    assert f"\n{line}in a mean update 0.2 messages, 389.6 B\n" in as_text(found)


def test_one_card_takes_bytes_gives_four_numbers_and_sends_nothing(check):
    words = ["--train_crop", "random_resized", "--image_size", 32, "--num_classes", 7, "--cards", 1]
    _, found, _ = check(*RESNET9, *words)
    assert "factors" not in found
    train, _, export = found["graphs"].values()
    assert train["collectives"] == []
    assert train["from_host"] == 6 * (3 * 32 * 32 + 4 * 7)
    assert train["to_host"] == 4 * 4
    assert {"from": "uint8", "to": "float32", "count": 1, "bytes": 6 * 4 * 3 * 32 * 32} in train["casts"]
    assert (export["from_host"], export["to_host"], export["casts"]) == (4 * 3 * 32 * 32, 4 * 7, [])


def test_the_process_is_a_cpu_again(monkeypatch):
    monkeypatch.setenv("RANK_SIZE", "3")
    monkeypatch.delenv("RANK_ID", raising=False)
    with pytest.raises(UserError), as_on_ascend(8):
        assert (ms.get_context("device_target"), get_device_num()) == ("Ascend", 8)
        assert ms.get_context("mode") == ms.GRAPH_MODE
        raise UserError("stop")
    assert (ms.get_context("device_target"), get_device_num()) == ("CPU", 3)
    assert "RANK_ID" not in os.environ
