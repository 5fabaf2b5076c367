# SPDX-License-Identifier: Apache-2.0
"""The table of runs whose figures are known, as numbers and as Markdown, and its picture."""

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.common.files import to_json
from src.experiments.picture import draw_arms
from src.experiments.report import as_markdown
from src.experiments.results import Result, facts_of
from tests.experiments.fake_runs import fake_run

FINALS = {"first": (60.0, 61.0, 62.0), "second": (63.0, 64.0, 66.0), "third": (58.5,)}


@pytest.fixture
def known(arms):
    """The arms of FINALS and their results; `second` has six views too, and a fourth arm has no run."""
    made = arms(views=["six"], **{name: {} for name in (*FINALS, "fourth")})
    for arm in made[:3]:
        for seed, top1 in enumerate(FINALS[arm.name]):
            more = {"six": top1 + 0.5 + 0.1 * seed} if arm.name == "second" else {}
            curve = (40.0 + seed, 50.0, top1)
            fake_run(arm.run(seed).folder, seed=seed, top1=curve, speed=100 / (seed + 1), views=more)
    return made, {arm.name: [Result.of(run) for run in arm.finished()] for arm in made}


def _facts(known, baseline="first"):
    arms, results = known

    def compute(result, kind):
        return result.images / 1000 + result.classes + (0.5 if kind == "six" else 0)

    return facts_of(arms, results, baseline=baseline, compute=compute)


def test_the_figures_of_a_run(known):
    result = known[1]["second"][1]
    assert result.top1 == {"none": 64.0, "six": 64.6}
    assert (result.seed, result.epochs, result.images, result.test_images) == (1, 3.0, 3000, 200)
    assert (result.classes, result.wall_seconds) == (3, 120.0)
    np.testing.assert_allclose(result.curve, [[1, 20, 41], [2, 40, 50], [3, 60, 64]])


def test_a_run_that_ends_with_several_views_has_its_plain_one_too(arms):
    (arm,) = arms(one={"tta": "flip"})  # edited since
    fake_run(arm.run(0).folder, top1=(40.0, 61.5), plain=61.0, keys={"tta": "six", "tta_share": 0.25})
    result = Result.of(arm.run(0))
    assert result.top1 == {"six:0.25": 61.5, "none": 61.0}
    np.testing.assert_array_equal(result.curve[:, 2], [40.0, 61.0])
    facts = facts_of([arm], {"one": [result]}, baseline="one", compute=lambda result, kind: 1.0)
    assert [(row["views"], row["mean"], row["difference"]) for row in facts["rows"]] == [
        ("six:0.25", 61.5, None), ("none", 61.0, None)
    ]  # fmt: skip
    assert [(row["views"], row["difference"]) for row in facts["views"]] == [("six:0.25", 0.5)]


def test_the_rows_by_hand(known):
    facts = _facts(known)
    rows = {(row["recipe"], row["views"]): row for row in facts["rows"]}
    assert list(rows) == [("first", "none"), ("second", "none"), ("second", "six"), ("third", "none")]
    first, second, six, third = rows.values()
    assert (first["n"], first["mean"], first["sd"], first["min"], first["max"]) == (3, 61, 1, 60, 62)
    assert second["mean"] == pytest.approx(193 / 3) and second["sd"] == pytest.approx(np.sqrt(7 / 3))
    assert second["difference"] == pytest.approx(10 / 3)
    assert second["interval"][0] < 10 / 3 < second["interval"][1]
    assert six["difference"] == pytest.approx(10 / 3 + 0.6) and six["pflop"] == second["pflop"] + 0.5 == 6.5
    assert (third["n"], third["sd"], third["interval"], third["difference"]) == (1, None, None, -2.5)
    assert first["difference"] is None and first["wall_seconds"] == 120
    assert facts["pooled_sd"] == pytest.approx(np.sqrt((2 * 1 + 2 * 7 / 3) / 4))
    assert facts["without_runs"] == ["fourth"]
    (views,) = facts["views"]
    assert (views["recipe"], views["views"], views["n"]) == ("second", "six", 3)
    assert views["difference"] == pytest.approx(0.6)
    # sd 0.1 of the three differences, t of 2 degrees of freedom 4.303
    assert views["interval"] == pytest.approx([0.6 - 0.24842, 0.6 + 0.24842], abs=1e-4)


def test_the_baseline_is_another_recipe_or_the_row_before(known):
    other = [row["difference"] for row in _facts(known, "second")["rows"]]
    assert other == pytest.approx([-10 / 3, None, None, 58.5 - 193 / 3])
    before = [row["difference"] for row in _facts(known, "previous")["rows"]]
    assert before == pytest.approx([None, 10 / 3, 10 / 3 + 0.6, 58.5 - 193 / 3])
    assert [row["difference"] for row in _facts(known, "fourth")["rows"]] == [None] * 4


def test_a_row_is_compared_with_that_of_the_same_views(arms):
    made = arms(one={}, two={}, three={})
    for arm, views in zip(made, ({"six": 70.0}, {"six": 75.0}, {"flip": 76.0}), strict=True):
        fake_run(arm.run(0).folder, views=views)
    results = {arm.name: [Result.of(arm.run(0))] for arm in made}
    facts = facts_of(made, results, baseline="one", compute=lambda result, kind: 1.0)
    found = {(row["recipe"], row["views"]): row["difference"] for row in facts["rows"]}
    assert (found["two", "none"], found["two", "six"], found["three", "flip"]) == (0, 5, 16)
    assert "Each is to the row of one with the same views, or to its first where it has none." in (
        as_markdown(facts)
    )


def test_the_table_as_markdown(known):
    text = as_markdown(_facts(known))
    lines = text.splitlines()
    assert lines[0].startswith("| recipe | views | n | top-1 % | SD |") and "to first" in lines[0]
    assert lines[2] == "| first | none | 3 | 61.00 | 1.00 | 60.00 | 62.00 | 3 | 6 | 2.0 |  |  |  |"
    assert lines[3].startswith("| second | none | 3 | 64.33 | 1.53 | 63.00 | 66.00 | 3 | 6 | 2.0 | +3.33 | ")
    assert lines[5] == "| third | none | 1 | 58.50 |  | 58.50 | 58.50 | 3 | 6 | 2.0 | -2.50 |  |  |"
    assert {line.count("|") for line in lines[:6]} == {14}
    assert "Without a finished run: fourth." in text
    assert "| second | six | 3 | +0.60 | +0.35 to +0.85 |" in text
    assert "1.29 points: 2,618 for 0.1, " in text
    where = "Trained on a processor, 1 core a run, MindSpore 2.10.0; a processor, 2 cores a run, MindSpore"
    assert where in text and len(_facts(known)["environments"]) == 2
    assert to_json(_facts(known)).count('"interval"') == 5


def test_without_any_run_the_table_says_so(arms):
    made = arms(one={})
    facts = facts_of(made, {"one": []}, baseline="one", compute=None)
    assert facts["rows"] == [] and "Without a finished run: one." in as_markdown(facts)


def test_the_picture(known, tmp_path):
    for name, results in {"some": known[1], "none": {"first": []}}.items():
        draw_arms(results, tmp_path / f"{name}.png")
    some, none = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("some", "none")
    )
    blue = np.abs(some.astype(int) - (0x1F, 0x5A, 0x96)).sum(axis=2) < 30
    assert blue[:, : some.shape[1] // 2].sum() > 200 and blue[:, some.shape[1] // 2 :].sum() > 200
    assert (none.reshape(-1, 3).min(axis=1) > 150).mean() > 0.95


def test_a_damaged_summary_is_one_line(arms):
    (arm,) = arms(one={})
    fake_run(arm.run(0).folder)
    (arm.run(0).folder / "summary.json").write_text('{"final": {}}')
    with pytest.raises(UserError, match=r"summary.json is damaged \(KeyError\('top1'\)\); remove it, and "):
        Result.of(arm.run(0))
