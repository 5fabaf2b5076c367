# SPDX-License-Identifier: Apache-2.0
"""Parameter groups: which weight decay and learning rate a parameter gets by its name, and how long."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import mindspore as ms
import numpy as np

from ..common.errors import UserError
from .keys import OptimizerKeys

_NAMES_SHOWN = 5
_ROUNDING = 1e-6  # updates, of epochs that are no exact number


@dataclass(frozen=True)
class ParamRule:
    """One line of the grouping: parameters whose name matches `pattern` share these settings.

    Attributes:
        name: what the group is called in messages and logs.
        pattern: a regular expression, looked for anywhere in the parameter's name (`re.search`).
        weight_decay: coefficient of the decay, before any learning rate; 0 for none.
        lr_multiplier: factor on the schedule's rate; 0 holds the group still.
        epochs: how long they are trained; they stand still afterwards.
        optional: whether a network may have no such parameter.
        is_head: whether it is of the classifier, which an optimizer for hidden layers leaves to another.

    Raises:
        UserError: the pattern is not a regular expression, or a number is negative or not finite.
    """

    name: str
    pattern: str
    weight_decay: float
    lr_multiplier: float = 1.0
    epochs: float = math.inf
    optional: bool = False
    is_head: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(
                f"parameter rule '{self.name}': {self.pattern!r} is not a regular expression: {error}"
            ) from error
        for key in ("weight_decay", "lr_multiplier"):
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise UserError(
                    f"parameter rule '{self.name}': {key} must be finite and not negative, got {value}"
                )


@dataclass(frozen=True, eq=False)  # two stages of one rule differ in tensors alone
class ParamGroup:
    """Parameters that are updated alike, in network order.

    Attributes:
        epochs: how long they are trained.
        is_head: as in the rule.
        rates: of each of their updates, before `lr_multiplier`, where they are trained for a part of the run;
            None: the common rates.
    """

    name: str
    parameters: tuple[ms.Parameter, ...]
    weight_decay: float
    lr_multiplier: float = 1.0
    epochs: float = math.inf
    is_head: bool = False
    rates: np.ndarray | None = None


def small_decay(keys: OptimizerKeys) -> float:
    """The weight decay of normalisation scales and biases at the rate `lr`."""
    return decay_at(keys, keys.lr) if keys.decay_norm_and_bias else 0.0


def decay_at(keys: OptimizerKeys, lr: float) -> float:
    """The weight decay of parameters with that rate, before it is multiplied by the rate.

    Decoupled (`decoupled_decay`), it is divided by the rate, so that a whole update takes weight_decay times
    the schedule's height (airbench: `wd / lr`).
    """
    return keys.weight_decay / lr if keys.decoupled_decay else keys.weight_decay


def default_rules(keys: OptimizerKeys, *, head_prefix: str = "") -> list[ParamRule]:
    """Biases, normalisation scales, all other weights, and the classifier, which may have a rate of its own.

    Args:
        head_prefix: what the names of the classifier's parameters begin with; "": there is none.
    """
    factor, small = keys.bias_lr_multiplier, small_decay(keys)
    head, rules = re.escape(head_prefix), []
    if keys.head_lr and head:
        own = decay_at(keys, keys.head_lr) if keys.decay_norm_and_bias else 0.0
        pattern = rf"^{head}(.*\.)?(beta|bias)$"
        rules.append(ParamRule("classifier's biases", pattern, own, keys.head_lr / keys.lr, optional=True))
    rules += [
        ParamRule("biases", r"(^|\.)(beta|bias)$", small / factor, factor, optional=True),
        ParamRule("scales", r"(^|\.)gamma$", small, optional=True),
        ParamRule("weights", rf"^(?!{head})" if head else r".*", decay_at(keys, keys.lr)),
    ]
    if head:
        lr = keys.head_lr or keys.lr
        own = {"optional": not keys.head_lr, "is_head": True}
        rules.append(ParamRule("classifier", f"^{head}", decay_at(keys, lr), lr / keys.lr, **own))
    return rules


def group_parameters(parameters: Iterable[ms.Parameter], rules: Sequence[ParamRule]) -> list[ParamGroup]:
    """Sort parameters into one group per rule; the first rule whose pattern matches takes a parameter.

    Every parameter must find a rule, and every rule that is not optional a parameter, so that renaming a
    layer cannot drop its weight decay in silence.

    Args:
        parameters: what is to be trained, in network order.
        rules: tried in this order for every parameter.

    Returns:
        The groups that have parameters, in the order of the rules; the parameters of each in network order.

    Raises:
        UserError: there are no parameters, a parameter matches no rule, or a rule gets no parameter.
    """
    parameters = list(parameters)
    if not parameters:
        raise UserError("there is no parameter to group: the network has nothing to train")
    members: list[list[ms.Parameter]] = [[] for _ in rules]
    unmatched = []
    for parameter in parameters:
        for rule, group in zip(rules, members, strict=True):
            if re.search(rule.pattern, parameter.name):
                group.append(parameter)
                break
        else:
            unmatched.append(parameter.name)
    if unmatched:
        patterns = ", ".join(f"{rule.name} ({rule.pattern!r})" for rule in rules) or "none"
        raise UserError(
            f"no parameter rule matches {', '.join(unmatched)}: the rules are {patterns}; "
            "add one, or widen a pattern"
        )
    idle = [
        f"{rule.name} ({rule.pattern!r})"
        for rule, group in zip(rules, members, strict=True)
        if not (group or rule.optional)
    ]
    if idle:
        raise UserError(
            f"no parameter is left for the parameter rule {', '.join(idle)}: "
            f"known names are {_some_names(parameters)}; mend its pattern, or drop it"
        )
    return [
        ParamGroup(rule.name, tuple(group), rule.weight_decay, rule.lr_multiplier, rule.epochs, rule.is_head)
        for rule, group in zip(rules, members, strict=True)
        if group
    ]


def frozen_in_stages(
    groups: Sequence[ParamGroup], stages: Sequence[str], epochs: Sequence[float]
) -> list[ParamGroup]:
    """The groups, with what is trained as long as its stage in groups of its own.

    Args:
        stages: what the names of each stage's parameters begin with, in forward order.
        epochs: how long each of the first stages is trained.

    Raises:
        UserError: there are more times than stages.
    """
    if len(epochs) > len(stages):
        known = f"{len(stages)} stages ({', '.join(stages)})" if stages else "no stages"
        raise UserError(
            f"freeze_epochs: {len(epochs)} times given, and the network has {known} that can freeze; "
            + ("give no more than that" if stages else "leave it out")
        )
    times = dict(zip(stages, epochs, strict=False))
    found = []
    for group in groups:
        parts: dict[float, list[ms.Parameter]] = {}
        for parameter in group.parameters:
            parts.setdefault(min(group.epochs, _time_of(parameter.name, times)), []).append(parameter)
        found += [replace(group, parameters=tuple(part), epochs=time) for time, part in parts.items()]
    return found


def with_own_rates(
    groups: Sequence[ParamGroup], rates: Sequence[float], *, updates_per_epoch: float, course: str
) -> list[ParamGroup]:
    """The groups, with rates of their own where they are trained for a part of the run.

    That part is a whole number of updates, rounded up as airbench does.

    Args:
        rates: common rates of the whole run.
        updates_per_epoch: need not be whole.
        course: one of keys.COURSES. "fall": the whole run's rates in the shorter time, by straight lines
            between them. With a cosine this is FreezeOut (Brock et al., arXiv 1706.04983) with rates that are
            not scaled. "cut": the common rates, as far as they go.
    """
    found = []
    for group in groups:
        updates = math.ceil(min(len(rates), group.epochs * updates_per_epoch - _ROUNDING))
        if updates < len(rates):
            places = np.arange(updates) * (len(rates) / updates if course == "fall" else 1)
            own = np.interp(places, np.arange(len(rates)), rates)
            group = replace(group, rates=own)
        found.append(group)
    return found


def _time_of(name: str, times: Mapping[str, float]) -> float:
    return next((time for prefix, time in times.items() if name.startswith(prefix)), math.inf)


def _some_names(parameters: Sequence[ms.Parameter]) -> str:
    names = [parameter.name for parameter in parameters[:_NAMES_SHOWN]]
    left_out = len(parameters) - len(names)
    return ", ".join(names) + (f" and {left_out} more" if left_out else "")
