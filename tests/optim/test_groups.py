import math

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.optim.groups import ParamRule, default_rules, group_parameters
from src.optim.keys import OptimizerKeys


def parameters(*names):
    return [ms.Parameter(ms.Tensor(np.zeros(2, np.float32)), name=name) for name in names]


def names_of(group):
    return [parameter.name for parameter in group.parameters]


def test_the_first_rule_that_matches_wins_and_orders_are_kept():
    network = parameters("stem.weight", "stem.bias", "bn.gamma", "head.weight", "head.bias")
    rules = [
        ParamRule("head", r"^head\.", 0.0, 10.0),
        ParamRule("biases", r"bias$", 1e-6, 64.0),
        ParamRule("rest", "", 5e-4),
    ]
    groups = group_parameters(network, rules)
    assert [group.name for group in groups] == ["head", "biases", "rest"]
    assert [names_of(group) for group in groups] == [
        ["head.weight", "head.bias"],
        ["stem.bias"],
        ["stem.weight", "bn.gamma"],
    ]
    assert [(group.weight_decay, group.lr_multiplier) for group in groups] == [
        (0.0, 10.0),
        (1e-6, 64.0),
        (5e-4, 1.0),
    ]
    assert groups[2].parameters[0] is network[0]


def test_patterns_are_searched_anywhere_in_the_name():
    (group,) = group_parameters(parameters("layer1.conv.weight"), [ParamRule("convs", r"conv", 0.0)])
    assert names_of(group) == ["layer1.conv.weight"]


def test_an_iterator_of_parameters_is_accepted():
    (group,) = group_parameters(iter(parameters("a", "b")), [ParamRule("all", "", 0.0)])
    assert names_of(group) == ["a", "b"]


def refusal(*args):
    with pytest.raises(UserError) as error:
        group_parameters(*args)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_all_unmatched_parameters_are_named():
    message = refusal(parameters("a.weight", "a.bias", "b.scale"), [ParamRule("weights", "weight$", 0.0)])
    assert "a.bias, b.scale" in message
    assert "a.weight" not in message
    assert "weights ('weight$')" in message


def test_all_idle_rules_are_named_with_some_known_names():
    rules = [ParamRule("all", "", 0.0), ParamRule("late", "p0", 0.0), ParamRule("typo", "wieght", 0.0)]
    message = refusal(parameters(*(f"p{i}" for i in range(9))), rules)
    assert "late ('p0'), typo ('wieght')" in message
    assert "p0, p1, p2, p3, p4 and 4 more" in message


def test_without_parameters_there_is_nothing_to_train():
    assert "nothing to train" in refusal([], [ParamRule("all", "", 0.0)])


def test_without_rules_every_parameter_is_unmatched():
    assert "no parameter rule matches a" in refusal(parameters("a"), [])


def test_a_broken_pattern_is_refused_at_once():
    with pytest.raises(UserError, match=r"^parameter rule 'convs': '\(' is not a regular expression: .*$"):
        ParamRule("convs", "(", 0.0)


@pytest.mark.parametrize("key", ["weight_decay", "lr_multiplier"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_numbers_out_of_range_are_refused(key, value):
    with pytest.raises(UserError, match=f"^parameter rule 'all': {key} must be .*$"):
        ParamRule("all", "", **({"weight_decay": 0.0} | {key: value}))


def test_a_plain_classifier_may_have_neither_biases_nor_scales():
    """Old behaviour: refused, "no parameter is left for the parameter rule scales"."""
    (group,) = group_parameters(parameters("a.weight"), default_rules(OptimizerKeys(weight_decay=0.1)))
    assert (group.name, group.weight_decay, names_of(group)) == ("weights", 0.1, ["a.weight"])
