# SPDX-License-Identifier: Apache-2.0
"""What the record of the ablation says of each recipe, from figures that are written by hand."""

from benchmarks.cpu_ablation import effects


def row(recipe, views, difference=None, interval=None):
    return {"recipe": recipe, "views": views, "difference": difference, "interval": interval}


def test_the_effect_of_a_recipe_is_that_of_its_own_views():
    rows = [row("base", "none"), row("b", "flip", 1.04, [-0.5, 2.5]), row("b", "none", -0.3, [-1.0, 0.4])]
    facts = {"baseline": "base", "rows": rows, "views": [row("b", "flip", 9.0, [8.0, 10.0])]}
    assert effects(facts) == {"b": "+1.0 (-0.5 to +2.5)"}


def test_views_of_the_baseline_count_by_kind():
    facts = {
        "baseline": "base",
        "rows": [row("base", "none"), row("base", "flip")],
        "views": [row("base", "flip", 0.62, [0.1, 1.1]), row("base", "six:0.25", -0.25, [-0.6, 0.1])],
    }
    assert effects(facts) == {"flip": "+0.6 (+0.1 to +1.1)", "six_0_25": "-0.2 (-0.6 to +0.1)"}
