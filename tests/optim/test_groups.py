# SPDX-License-Identifier: Apache-2.0
import math

import mindspore as ms
import numpy as np
import pytest

from src.common.errors import UserError
from src.optim.groups import (
    ParamGroup,
    ParamRule,
    default_rules,
    frozen_in_stages,
    group_parameters,
    with_own_rates,
)
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


def settings(keys, *names, head_prefix="head."):
    rules = default_rules(OptimizerKeys(**keys), head_prefix=head_prefix)
    groups = group_parameters(parameters(*names), rules)
    return {p.name: (group.weight_decay, group.lr_multiplier) for group in groups for p in group.parameters}


def test_a_classifier_may_have_a_rate_of_its_own():
    names = ("a.weight", "a.bias", "headline.weight", "head.weight", "head.bias")
    keys = {"lr": 0.5, "weight_decay": 0.1, "bias_lr_multiplier": 4.0}
    plain = settings(keys, *names)
    own = settings({**keys, "head_lr": 2.0}, *names)
    assert {name: own[name] for name in names[:3]} == {name: plain[name] for name in names[:3]}
    assert own["head.weight"] == own["head.bias"] == (0.1, 4.0)
    undecayed = settings({**keys, "head_lr": 2.0, "decay_norm_and_bias": False}, *names)
    assert undecayed["head.weight"] == (0.1, 4.0) and undecayed["head.bias"] == (0.0, 4.0)
    assert plain["head.weight"] == (0.1, 1.0) and plain["head.bias"] == (0.1 / 4, 4.0)


@pytest.mark.parametrize("head_lr", [0.0, 2.0])
def test_the_classifiers_weights_are_marked_and_come_last(head_lr):
    rules = default_rules(OptimizerKeys(head_lr=head_lr), head_prefix="head.conv.")
    groups = group_parameters(parameters("a.weight", "headed.weight", "head.conv.weight"), rules)
    assert [(names_of(group), group.is_head) for group in groups] == [
        (["a.weight", "headed.weight"], False), (["head.conv.weight"], True)
    ]  # fmt: skip


def test_a_decoupled_decay_does_not_follow_the_rates():
    """Decay times rate is the same for all, and whatever lr is."""
    names = ("a.weight", "a.bias", "a.gamma", "head.weight")
    for lr, bias, head in [(0.5, 1.0, 0.0), (2.0, 64.0, 3.0)]:
        keys = {"lr": lr, "head_lr": head, "bias_lr_multiplier": bias, "weight_decay": 0.1}
        for decay, multiplier in settings({**keys, "decoupled_decay": True}, *names).values():
            assert decay * multiplier * lr == pytest.approx(0.1)


def test_what_freezes_with_its_stage_is_in_groups_of_its_own():
    network = parameters(
        "one.conv.weight", "one.bias", "two.weight", "two.bias", "head.weight", "onerous.bias"
    )
    groups = group_parameters(
        network, [ParamRule("biases", "bias", 0.0, 2.0, epochs=3.0), ParamRule("rest", "", 0.1)]
    )
    found = frozen_in_stages(groups, ("one.", "two."), (2.0, 5.0))
    times = {p.name: group.epochs for group in found for p in group.parameters}
    assert times == {
        "one.bias": 2.0, "two.bias": 3.0, "onerous.bias": 3.0,
        "one.conv.weight": 2.0, "two.weight": 5.0, "head.weight": math.inf,
    }  # fmt: skip
    assert all(group.lr_multiplier == (2.0 if group.name == "biases" else 1.0) for group in found)
    for stages, message in [
        (("one.",), r"1 stages \(one\.\) that can freeze; give no more"),
        ((), "no stages that can freeze; leave it out"),
    ]:
        with pytest.raises(UserError, match=f"^freeze_epochs: 2 times given, and the network has {message}"):
            frozen_in_stages(groups, stages, (2.0, 5.0))


def test_a_part_of_the_run_has_the_whole_course_or_its_beginning():
    """With a cosine "fall" is FreezeOut: lr / 2 * (1 + cos(pi t / t_i)), and then nothing."""
    rates = 0.1 / 2 * (1 + np.cos(np.pi * np.arange(1000) / 1000))
    groups = [ParamGroup(str(epochs), (), 0.0, epochs=epochs) for epochs in (0.19, 5.0, 10.0, math.inf)]
    some = {"updates_per_epoch": 100.0}
    first, half, *whole = with_own_rates(groups, rates, course="fall", **some)
    assert [group.rates for group in whole] == [None, None]
    for group, updates in ((first, 19), (half, 500)):
        expected = 0.1 / 2 * (1 + np.cos(np.pi * np.arange(updates) / updates))
        np.testing.assert_allclose(group.rates, expected, atol=1e-6)
    _, cut, *_ = with_own_rates(groups, rates, course="cut", **some)
    np.testing.assert_array_equal(cut.rates, rates[:500])


@pytest.mark.parametrize(
    ("epochs", "updates"), [(3.0, 75), (0.281, 8), (7 / 25, 7), (8.0, None), (9.0, None)]
)
def test_a_part_is_rounded_up_to_whole_updates(epochs, updates):
    (group,) = with_own_rates(
        [ParamGroup("all", (), 0.0, epochs=epochs)], np.ones(200), updates_per_epoch=25, course="cut"
    )
    assert (None if group.rates is None else len(group.rates)) == updates
