# SPDX-License-Identifier: Apache-2.0
"""The keys of the learning rate and of the optimizer.

A new optimizer is a class, a row of OPTIMIZERS, and its keys.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from ..model_utils.keys import Keys, Numbers, key, refusal
from .schedules import LR_SCALE_RULES, SCHEDULES


def _with(argument: str) -> str:
    """The schedules that have an argument, in words."""
    return ", ".join(name for name, schedule in SCHEDULES.items() if argument in schedule.arguments)


def with_one_length(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`epochs` on the command line decides, whatever train_steps the recipe or the run has."""
    if "epochs" in overrides and "train_steps" not in overrides:
        return {**overrides, "train_steps": 0}
    return dict(overrides)


# Of decays that optimizers compute with in float32, where what is nearer to 1 would be 1.
_FRACTION = {"ge": 0, "le": 0.999999}
# The rates of what is trained for a part of the run (groups.with_own_rates).
COURSES = ("fall", "cut")
# Muon's iteration: X <- a X + (b A + c A^2) X with A = X X^T.
_MUON_COEFFICIENTS = (3.4445, -4.775, 2.0315)
_COOLING = ", ".join(name for name, schedule in SCHEDULES.items() if schedule.cools_down)
# name -> (module of this package, class, {its argument: the key that says it})
OPTIMIZERS = {
    "sgd": (
        "optimizers",
        "SGD",
        {"momentum": "momentum", "nesterov": "nesterov", "lr_in_velocity": "lr_in_velocity"},
    ),
    "adam": ("optimizers", "Adam", {"beta1": "beta1", "beta2": "beta2", "eps": "optimizer_eps"}),
    "adamw": ("optimizers", "AdamW", {"beta1": "beta1", "beta2": "beta2", "eps": "optimizer_eps"}),
    "rmsprop": (
        "optimizers",
        "RMSProp",
        {"decay": "rmsprop_decay", "momentum": "momentum", "eps": "optimizer_eps"},
    ),
    "muon": (
        "muon",
        "Muon",
        {
            "momentum": "momentum",
            "nesterov": "nesterov",
            "lr_in_velocity": "lr_in_velocity",
            "lr": "lr",
            "filter_lr": "muon_lr",
            "filter_momentum": "muon_momentum",
            "filter_decay": "muon_weight_decay",
            "steps": "muon_steps",
            "coefficients": "muon_coefficients",
            "norm_every": "muon_norm_every",
            "norm_growth": "muon_norm_growth",
        },
    ),
    "thor": (
        "thor.optimizer",
        "Thor",
        {
            "momentum": "momentum",
            "nesterov": "nesterov",
            "lr_in_velocity": "lr_in_velocity",
            "lr": "lr",
            "layer_lr": "thor_lr",
            "damping": "thor_damping",
            "damping_decay": "thor_damping_decay",
            "balanced": "thor_balanced",
            "every": "thor_every",
            "block": "thor_block",
        },
    ),
}


class ScheduleKeys(Keys):
    """Length of training and learning rate. The rate changes with every update."""

    epochs: float = key(24.0, "length of training", unit="epochs", gt=0)
    train_steps: int = key(0, "length of training in updates; 0: `epochs` decides", unit="updates", ge=0)
    lr: float = key(0.4, "peak learning rate, for lr_base_batch images per update", unit="rate", gt=0)
    lr_scale_rule: Literal[tuple(LR_SCALE_RULES)] = key(
        "none",
        "how rates follow the images per update / lr_base_batch; linear: in proportion; sqrt: by its root; "
        "decoupled: linear, over 1 + 1 / (1 - momentum) (airbench)",
    )
    lr_base_batch: int = key(512, "images per update that the rates are meant for", unit="images", ge=1)
    lr_schedule: Literal[tuple(SCHEDULES)] = key(
        "one_cycle", "course of the learning rate; src/optim/schedules.py has the formulas"
    )
    warmup_epochs: float = key(
        5.0,
        f"linear rise from lr_start ({_with('warmup_steps')}); a quarter of a run that is shorter",
        unit="epochs",
        ge=0,
    )
    lr_start: float = key(
        0.0, f"rate where the warm-up begins; lowest rate of a cycle ({_with('lr_min')})", unit="rate", ge=0
    )
    lr_end: float = key(
        0.0,
        f"rate at the end ({_with('lr_end')}); of the other schedules in the cool-down",
        unit="rate",
        ge=0,
    )
    cooldown_epochs: float = key(
        0.0,
        f"the last epochs, which have the rate lr_end ({_COOLING})",
        unit="epochs",
        ge=0,
    )
    lr_epochs: Numbers = key(
        (), f"epochs at which the rate is one of lr_values ({_with('knots')})", unit="epochs"
    )
    lr_values: Numbers = key(
        (), f"rates at lr_epochs, with straight lines between them ({_with('values')})", unit="rate"
    )
    lr_milestones: Numbers = key(
        (), f"when the rate is multiplied by lr_gamma ({_with('milestones')})", unit="epochs"
    )
    lr_every: float = key(
        30.0,
        f"from one drop to the next ({_with('every')}); half a cycle ({_with('half_cycle')})",
        unit="epochs",
        gt=0,
    )
    lr_gamma: float = key(
        0.1, f"factor of a drop ({_with('gamma')}); exp_range has one in every update", gt=0, le=1
    )
    lr_power: float = key(1.0, f"power ({_with('power')})", gt=0)
    lr_zero_epoch: float = key(
        0.0, f"when the rate is 0 ({_with('zero_step')}); 0: at the run's end", unit="epochs", ge=0
    )

    @model_validator(mode="after")
    def _cools_down(self) -> "ScheduleKeys":
        if self.cooldown_epochs and not SCHEDULES[self.lr_schedule].cools_down:
            raise refusal("cooldown_epochs", self.cooldown_epochs, f"0 with lr_schedule {self.lr_schedule}")
        return self

    @model_validator(mode="after")
    def _points_fit(self) -> "ScheduleKeys":
        knots, values = len(self.lr_epochs), len(self.lr_values)
        if self.lr_schedule == "piecewise" and (knots != values or knots < 2):
            raise ValueError(
                f"lr_values: {values} rates given, allowed: as many as lr_epochs ({knots}), and at least 2"
            )
        if self.lr_schedule == "multi_step" and not self.lr_milestones:
            raise refusal("lr_milestones", (), "at least one epoch with lr_schedule multi_step")
        return self

    @model_validator(mode="after")
    def _learns_to_the_end(self) -> "ScheduleKeys":
        if self.lr_schedule == "thor" and not self.train_steps and 0 < self.lr_zero_epoch < self.epochs:
            raise refusal("lr_zero_epoch", self.lr_zero_epoch, f"0, or epochs ({self.epochs:g}) and more")
        return self


class OptimizerKeys(ScheduleKeys):
    """Optimizer and parameter groups."""

    optimizer: Literal[tuple(OPTIMIZERS)] = key("sgd", "update rule")
    momentum: float = key(
        0.9, "momentum of sgd, rmsprop and thor, and of what muon leaves to sgd", **_FRACTION
    )
    nesterov: bool = key(True, "Nesterov's form of momentum (sgd, muon, thor)")
    lr_in_velocity: bool = key(
        False,
        "what the velocity sums up in sgd, thor, and what muon leaves to sgd; true: rate times gradient "
        "(cifar10-fast); false: the gradient (PyTorch)",
    )
    beta1: float = key(0.9, "decay of the mean of the gradient (adam, adamw)", **_FRACTION)
    beta2: float = key(0.999, "decay of the mean of the squared gradient (adam, adamw)", **_FRACTION)
    optimizer_eps: float = key(
        1e-8, "epsilon, added to the root (adam, adamw) or under the root (rmsprop)", gt=0
    )
    rmsprop_decay: float = key(0.9, "decay of the mean of the squared gradient (rmsprop)", **_FRACTION)
    muon_lr: float = key(
        0.24,
        "peak rate of filters, the weights of 4 dimensions but the classifier's (muon); all other parameters "
        "have lr or head_lr",
        unit="rate",
        gt=0,
    )
    muon_momentum: float = key(0.6, "momentum of the filters (muon)", **_FRACTION)
    muon_steps: int = key(3, "Newton-Schulz steps that make an update orthogonal (muon)", unit="steps", ge=1)
    muon_coefficients: Numbers = key(
        _MUON_COEFFICIENTS, "a, b, c of a step X <- a X + (b A + c A^2) X, A = X X^T (muon)"
    )
    muon_norm_every: int = key(
        1, "how often muon rescales the D filters of a layer to the norm sqrt(D); 0: never",
        unit="updates", ge=0,
    )  # fmt: skip
    muon_norm_growth: float = key(
        0.0, "what muon_norm_every grows by over the run, rounded down (muon; Hiverge)", unit="updates", ge=0
    )
    muon_weight_decay: float = key(
        0.0, "weight decay of the filters, before it is multiplied by their rate (muon)", ge=0
    )
    thor_lr: float = key(
        0.0,
        "peak rate of convolutions and dense layers (thor); all other parameters have lr; 0: lr for all",
        unit="rate",
        ge=0,
    )
    thor_damping: float = key(
        0.03, "damping of the curvature; its root is added to both factors of a layer (thor)", gt=0
    )
    thor_damping_decay: float = key(0.87, "factor on thor_damping every 10 epochs (thor)", gt=0, le=1)
    thor_balanced: bool = key(
        False,
        "divide the damping between a layer's factors by their mean diagonal elements (thor; K-FAC); "
        "false: equally (MindSpore)",
    )
    thor_every: int = key(834, "how often thor inverts the curvature", unit="updates", ge=1)
    thor_block: int = key(128, "most rows of a block on the diagonal of a factor (thor)", unit="rows", ge=1)
    weight_decay: float = key(5e-4, "weight decay, before it is multiplied by the learning rate", ge=0)
    decoupled_decay: bool = key(
        False,
        "divide weight_decay by the peak rate: it follows the schedule, and lr does not change it (airbench)",
    )
    decay_norm_and_bias: bool = key(True, "also decay normalisation parameters and biases")
    bias_lr_multiplier: float = key(
        1.0, "factor on the learning rate of biases; their weight decay is divided by it", unit="factor", gt=0
    )
    head_lr: float = key(0.0, "peak rate of the classifier; 0: like all other parameters", unit="rate", ge=0)

    @model_validator(mode="after")
    def _makes_an_iteration(self) -> "OptimizerKeys":
        if len(self.muon_coefficients) != 3:
            raise refusal("muon_coefficients", self.muon_coefficients, "a list of 3 numbers")
        if self.muon_norm_growth and not self.muon_norm_every:
            raise refusal("muon_norm_growth", self.muon_norm_growth, "0 with muon_norm_every 0")
        return self

    @model_validator(mode="after")
    def _has_one_rate_of_the_layers(self) -> "OptimizerKeys":
        if self.optimizer == "thor" and self.thor_lr:
            for name, off in (("head_lr", 0), ("decoupled_decay", False)):
                if (value := getattr(self, name)) != off:
                    raise refusal(name, value, f"{off} with thor_lr")
        return self

    @model_validator(mode="after")
    def _has_the_momentum_of_the_rule(self) -> "OptimizerKeys":
        if self.lr_scale_rule == "decoupled" and self.optimizer != "sgd":
            raise refusal(
                "lr_scale_rule", "decoupled", f"none, linear or sqrt with optimizer {self.optimizer}"
            )
        return self
