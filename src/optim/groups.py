"""Parameter groups: which weight decay and which learning-rate multiplier a parameter gets, by its name."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mindspore as ms

from ..common.errors import UserError
from .keys import OptimizerKeys

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ParamRule:
    """One line of the grouping: parameters whose name matches `pattern` share these settings.

    Attributes:
        name: what the group is called in messages and logs.
        pattern: a regular expression, looked for anywhere in the parameter's name (`re.search`).
        weight_decay: coefficient of the decay, before any learning rate; 0 for none.
        lr_multiplier: factor on the schedule's rate; 0 holds the group still.
        optional: whether a network may have no such parameter.

    Raises:
        UserError: the pattern is not a regular expression, or a number is negative or not finite.
    """

    name: str
    pattern: str
    weight_decay: float
    lr_multiplier: float = 1.0
    optional: bool = False

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


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that are updated alike, in network order."""

    name: str
    parameters: tuple[ms.Parameter, ...]
    weight_decay: float
    lr_multiplier: float = 1.0


def default_rules(keys: OptimizerKeys) -> list[ParamRule]:
    """Biases, normalisation scales, and all other weights, as the keys decay them."""
    small = keys.weight_decay if keys.decay_norm_and_bias else 0.0
    factor = keys.bias_lr_multiplier
    return [
        ParamRule("biases", r"(^|\.)(beta|bias)$", small / factor, factor, optional=True),
        ParamRule("scales", r"(^|\.)gamma$", small, optional=True),
        ParamRule("weights", r".*", keys.weight_decay),
    ]


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
        ParamGroup(rule.name, tuple(group), rule.weight_decay, rule.lr_multiplier)
        for rule, group in zip(rules, members, strict=True)
        if group
    ]


def _some_names(parameters: Sequence[ms.Parameter]) -> str:
    names = [parameter.name for parameter in parameters[:_NAMES_SHOWN]]
    left_out = len(parameters) - len(names)
    return ", ".join(names) + (f" and {left_out} more" if left_out else "")
