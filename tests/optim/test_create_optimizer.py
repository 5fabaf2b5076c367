# SPDX-License-Identifier: Apache-2.0
"""Optimizers by name: what they are given, what their state is called, what they refuse."""

from typing import Literal

import pytest
from mindspore import nn

from src.common.errors import UserError
from src.layers.conv import conv2d, dense
from src.model_utils.config import check
from src.optim import optimizers
from src.optim.groups import ParamRule, group_parameters
from src.optim.keys import OPTIMIZERS, OptimizerKeys
from src.optim.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp, create_optimizer
from src.zoo import config_class_of, list_models

ORDER = ["conv.bias", "conv.weight", "head.weight"]


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = conv2d(in_channels=1, out_channels=2, kernel_size=1, bias=True)
        self.head = dense(in_channels=2, out_channels=3, bias=False)


def groups(network=None):
    rules = [ParamRule("biases", "bias", 0.0, 8.0), ParamRule("weights", "weight", 0.05)]
    return group_parameters((network or Net()).trainable_params(), rules)


SLOTS = {
    "sgd": ["velocity"],
    "adam": ["moment1", "moment2"],
    "adamw": ["moment1", "moment2"],
    "rmsprop": ["mean_square", "moment"],
    "muon": ["velocity"],
    "thor": ["velocity"],
}
OWN_STATE = {
    "adam": {"optim.step"},
    "adamw": {"optim.step"},
    "thor": {
        f"optim.thor.{part}.{layer}.weight" for part in ("input", "output") for layer in ("conv", "head")
    }
    | {"optim.thor.made", "optim.thor.raised"},
}


def created(name, **settings):
    network = Net()
    keys = check({"optimizer": name, **settings}, OptimizerKeys)
    return create_optimizer(keys, groups(network), network=network)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_order_and_flags(name):
    optimizer = created(name)
    assert [p.name for p in optimizer.parameters] == ORDER
    assert all(p.requires_grad for p in optimizer.parameters)
    assert optimizer.weight_decay == (0.0, 0.05, 0.05)
    filters = 0.24 / 0.4 if name == "muon" else 1.0  # its rate for them, over lr
    assert optimizer.lr_multiplier == (8.0, pytest.approx(filters), 1.0)
    state = [p for p in optimizer.get_parameters() if p.name not in ORDER]
    slots = {f"optim.{slot}.{parameter}" for slot in SLOTS[name] for parameter in ORDER}
    assert {p.name for p in state} == slots | OWN_STATE.get(name, set())
    assert not any(p.requires_grad for p in state)


def test_a_cell_that_holds_an_optimizer_does_not_rename_anything():
    optimizer = created("adam")
    before = [p.name for p in optimizer.get_parameters()]
    holder = nn.Cell()
    holder.optimizer = optimizer
    assert [p.name for p in holder.get_parameters()] == before


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("sgd", SGD, {"momentum": 0.75, "nesterov": True, "lr_in_velocity": True}),
        ("adam", Adam, {"beta1": 0.5, "beta2": 0.875, "eps": 0.125}),
        ("adamw", AdamW, {"beta1": 0.5, "beta2": 0.875, "eps": 0.125}),
        ("rmsprop", RMSProp, {"decay": 0.25, "momentum": 0.75, "eps": 0.125}),
    ],
)
def test_create_optimizer_passes_the_settings_on(name, kind, expected):
    optimizer = created(
        name,
        momentum=0.75,
        nesterov=True,
        lr_in_velocity=True,
        beta1=0.5,
        beta2=0.875,
        optimizer_eps=0.125,
        rmsprop_decay=0.25,
    )
    assert type(optimizer) is kind
    assert {key: getattr(optimizer, key) for key in expected} == expected


def test_layers_have_the_rate_of_layers_by_their_key():
    # of the convolution's bias, its weight, and the classifier
    assert created("thor", lr=0.5, thor_lr=0.25).lr_multiplier == (4.0, 0.5, 0.5)
    assert created("thor", lr=0.5).lr_multiplier == (8.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("head_lr", 0.1, "head_lr: 0.1 given, allowed: 0 with thor_lr"),
        ("decoupled_decay", True, "decoupled_decay: True given, allowed: False with thor_lr"),
    ],
)
def test_a_second_rate_of_the_layers_is_refused(key, value, line):
    with pytest.raises(UserError, match=line):
        created("thor", thor_lr=0.01, **{key: value})
    assert created("thor", **{key: value})


def test_a_new_optimizer_is_a_class_and_a_row(monkeypatch):
    """Old behaviour: a tuple, a chain of ifs, two copies of the names in configs and a recipe named each."""

    class Lion(Optimizer):
        def __init__(self, groups, *, fraction):
            super().__init__(groups)
            self.fraction = fraction

    monkeypatch.setattr(optimizers, "Lion", Lion, raising=False)
    monkeypatch.setitem(OPTIMIZERS, "lion", ("optimizers", "Lion", {"fraction": "beta1"}))
    keys = OptimizerKeys(beta1=0.5).model_copy(update={"optimizer": "lion"})
    made = create_optimizer(keys, groups())
    assert type(made) is Lion and made.fraction == 0.5


@pytest.mark.parametrize("model", list_models())
def test_every_model_takes_every_optimizer(model):
    """Old behaviour: Bi-Real's config had a copy of the names, and refused a new one."""
    choices = config_class_of(model).model_fields["optimizer"].annotation
    assert choices == Literal[tuple(OPTIMIZERS)]


def test_parameters_must_exist_and_have_different_names():
    with pytest.raises(ValueError, match=r"got \[\]"):
        SGD([], momentum=0.9, nesterov=False)
    with pytest.raises(ValueError, match=r"different names, got \['conv.bias', .*'conv.bias'"):
        SGD(groups() * 2, momentum=0.9, nesterov=False)


@pytest.mark.parametrize(
    ("name", "key", "bad"),
    [
        ("sgd", "momentum", 1.0),
        ("sgd", "momentum", -0.1),
        ("adam", "beta1", 1.0),
        ("adam", "beta2", 0.99999999),  # 1 in float32
        ("adamw", "beta2", -0.1),
        ("adamw", "eps", 0.0),
        ("rmsprop", "eps", float("inf")),
        ("rmsprop", "decay", float("nan")),
        ("rmsprop", "momentum", 1.5),
    ],
)
def test_settings_out_of_range_are_refused(name, key, bad):
    _, kind, arguments = OPTIMIZERS[name]
    settings = {argument: OptimizerKeys.model_fields[of].default for argument, of in arguments.items()}
    with pytest.raises(ValueError, match=f"^{key} must be .*$"):
        getattr(optimizers, kind)(groups(), **{**settings, key: bad})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"muon_coefficients": (1.5, -0.5)}, r"^muon_coefficients: \[1.5, -0.5\] given, .* 3 numbers"),
        ({"muon_norm_every": 0, "muon_norm_growth": 3.0}, "^muon_norm_growth: 3 given, allowed: 0 with"),
        (
            {"lr_scale_rule": "decoupled", "optimizer": "adam"},
            "^lr_scale_rule: 'decoupled' given, allowed: none",
        ),
    ],
)
def test_keys_that_make_no_optimizer_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        check(keys, OptimizerKeys)


@pytest.mark.parametrize("name", ["momentum", "beta1", "beta2", "rmsprop_decay", "muon_momentum"])
def test_a_fraction_that_float32_rounds_to_1_is_refused(name):
    with pytest.raises(
        UserError, match=f"^{name}: 0.99999999 given, allowed: a number >= 0 and <= 0.999999$"
    ):
        check({name: 0.99999999}, OptimizerKeys)
