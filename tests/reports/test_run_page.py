# SPDX-License-Identifier: Apache-2.0
"""The page of a run shows what its folder holds, escaped, in one small file that asks for nothing."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from src.common.errors import UserError
from src.evaluation.pictures import end_of_path
from src.reports.page import MOST, duration, number, render
from src.reports.run import thinned, write_run_page
from tests.helpers.pages import HOSTILE, Page

NAMES = ("red", "green", "blue", "grey")


def page_of(run, path):
    write_run_page(run, path)
    return Page(path)


def test_no_name_breaks_out_of_its_place(run_of, tmp_path):
    run = run_of(HOSTILE, name=HOSTILE[1], file="{}" + HOSTILE[2])
    page = page_of(run, tmp_path / "report.html")
    assert (page.alerts, page.addresses) == ([], [])
    assert set(HOSTILE) <= set(page.texts), "in the table of classes"
    assert HOSTILE[1] in page.texts and any(text.endswith(HOSTILE[1]) for text in page.texts), "name, path"
    assert end_of_path(f"0{HOSTILE[2]}", 60) in page.texts
    assert page.tags.count("img") == 4, "two worst and two best pictures"


def test_a_page_takes_its_colours_from_the_style_sheet(run_of, tmp_path):
    """Else they could not be read in dark. White stands in blue cells alone."""
    write_run_page(run_of(NAMES), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    in_pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(in_pictures) == 6  # loss, top-1, rate, confusion, calibration, speed
    for picture in in_pictures:
        style = " ".join(re.findall(r'style="([^"]*)"', picture))
        assert set(re.findall(r"#[0-9a-f]{6}", style)) <= {"#ffffff"} and "var(--ink)" in style
    used = set(re.findall(r"var\((--\w+)\)", text))
    light, dark = (set(re.findall(r"(--\w+): #", part)) for part in text.split("@media")[:2])
    assert used <= light == dark
    assert '<meta name="viewport" content="width=device-width' in text


def test_the_figures_are_those_of_the_files(run_of, tmp_path):
    run = run_of(NAMES)
    page = page_of(run, tmp_path / "report.html")
    facts = run.evaluation
    images, right, confusion = (np.array(facts[name]) for name in ("images", "right", "confusion"))
    assert {"60.00 %", "53.08 to 66.54 %", "1,200", "2 min 0 s"} <= set(page.texts)
    for label, name in enumerate(NAMES):
        row = page.texts.index(name)
        cells = [text.removesuffix(" %") for text in page.texts[row + 1 : row + 5]]
        precision = 100 * right[label] / confusion[:, label].sum()
        assert cells == [
            f"{100 * right[label] / images[label]:.1f}", f"{precision:.1f}", str(right[label]), "5"
        ]  # fmt: skip
    wrong = confusion - np.diag(np.diag(confusion))
    truth, said = np.unravel_index(wrong.argmax(), wrong.shape)
    first = page.texts.index("share of the class") + 1
    assert page.texts[first : first + 3] == [NAMES[truth], NAMES[said], str(wrong.max())]
    bins = facts["calibration"]
    error = 100 * np.abs(np.subtract(bins["right"], bins["probability"])).sum() / images.sum()
    assert any(f"Expected calibration error: {error:.2f} points." in text for text in page.texts)


def test_what_differs_from_the_defaults_is_named(run_of, tmp_path):
    run = run_of(NAMES)
    assert "Nothing: every key has its default." in page_of(run, tmp_path / "a.html").texts
    config = run.config.model_copy(update={"lr": 0.123, "run_name": "mine"})
    texts = page_of(replace(run, config=config), tmp_path / "b.html").texts
    place = texts.index("lr")
    assert texts[place + 1 : place + 3] == ["0.123", "0.4"] and "peak learning rate" in texts[place + 3]
    assert "run_name" not in texts


def test_starts_and_damaged_images_are_shown(run_of, tmp_path):
    run = run_of(NAMES)
    start = {
        "date": "2026-01-02 03:04:05", "images": 0, "step": 0, "epoch": 0.0, "batch": 40,
        "device": {"target": "CPU", "cards": 2}, "environment": run.summary["environment"],
    }  # fmt: skip
    again = start | {"date": "2026-01-03 03:04:05", "epoch": 1.5, "images": 1500}
    summary = run.summary | {"damaged_images": {"train": 3, "test": 1}}
    texts = page_of(replace(run, starts=[start, again], summary=summary), tmp_path / "a.html").texts
    assert "The run was resumed once." in texts
    place = texts.index("2026-01-03 03:04:05")
    assert texts[place + 1 : place + 5] == ["1.5", "1,500", "40", "2 × CPU"]
    assert any(text.startswith("Damaged images: 3 of the training") for text in texts)


@pytest.mark.parametrize("records", [True, False])
def test_a_run_that_has_not_ended_shows_what_there_is(run_of, tmp_path, records):
    run = run_of(NAMES, ended=False)
    page = page_of(run if records else replace(run, records=[]), tmp_path / "report.html")
    assert "This run has not ended. The page shows what it has so far." in page.texts
    assert ("2.00" if records else "0.00") in page.texts
    assert "img" not in page.tags and "svg" in page.tags


@pytest.mark.parametrize("classes", [200, 1500])
def test_a_page_of_much_is_small(run_of, tmp_path, classes):
    """Long names, large pictures of noise, and a record for each of 10,000 batches."""
    names = [f"{k:04d} {'很长的名字' * 16}" for k in range(classes)]
    run = run_of(names, side=300, pictures=25, file="{}" + "长" * 80)
    assert (tmp_path / "run" / "evaluation.json").stat().st_size < MOST
    rng = np.random.default_rng(0)
    parts = {f"loss_{name}": 1.0 for name in ("cross_entropy", "margin")}
    records = [
        {"images": k, "step": k, "epoch": k / 100, "loss": rng.normal(), "lr": 0.1, **parts,
         "images_per_second": 100 + rng.normal()}
        for k in range(1, 10_001)
    ]  # fmt: skip
    evaluations = [r for r in run.records if "eval_top1" in r]
    page = page_of(replace(run, records=records + evaluations), tmp_path / "report.html")
    assert page.size < MOST
    assert "One of 25 of 10,000 training records is drawn." in page.texts
    assert f"200 of {classes} classes, the lowest recall first." in " ".join(page.texts) or classes == 200


def test_of_many_records_some_are_drawn_and_every_evaluation():
    records = [{"loss": k} if k % 3 else {"eval_loss": k} for k in range(3000)]
    some, step, count = thinned(records)
    assert (step, count) == (5, 2000)
    assert [r for r in some if "eval_loss" in r] == [r for r in records if "eval_loss" in r]
    training = [r["loss"] for r in some if "loss" in r]
    assert 300 < len(training) <= 400 and training[-1] == 2999 and training == sorted(training)
    assert thinned(records[:9]) == (records[:9], 1, 6) and thinned([]) == ([], 1, 0)
    for broken in (1, 7, 1501):
        records[broken] = {"loss": math.nan}
    assert sum(math.isnan(r.get("loss", 0.0)) for r in thinned(records)[0]) == 3


FILES = ("summary.json", "metrics.jsonl", "evaluation.json", "starts.json")


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("summary.json", {"final": {}}), ("summary.json", {"environment": None}),
        ("summary.json", {"damaged_images": {"train": 1}}), ("metrics.jsonl", [{"images": 3, "epoch": 0}]),
        ("metrics.jsonl", [{"images": 3, "epoch": 1, "loss": "x"}]), ("evaluation.json", {"images": []}),
        ("evaluation.json", {"worst": [1]}), ("starts.json", [{"date": "2026-01-02"}]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_one_line(run_of, tmp_path, file, value):
    run = run_of(NAMES)
    name = {"metrics.jsonl": "records"}.get(file, file.removesuffix(".json"))
    changed = value if isinstance(value, list) else getattr(run, name) | value
    mend = "restore it from a copy" if file in FILES[:2] else "restore it, or remove it"
    with pytest.raises(UserError, match=rf"^{run.path}/{file} is damaged .*; {mend}$") as caught:
        write_run_page(replace(run, **{name: changed}), tmp_path / "report.html")
    assert not any(other in str(caught.value) for other in FILES if other != file)
    assert "\n" not in str(caught.value) and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("metric", "shown"), [("top1", "61.00 %"), ("loss", "0.5000"), ("top5", "91.00 %")])
def test_the_best_is_that_of_the_metric_that_chose_it(run_of, tmp_path, metric, shown):
    run = run_of(NAMES)
    best = {"epoch": 1.0, "top1": 62.0, "top1_plain": 61.0, "loss": 0.5, "top5": 91.0}
    config = run.config.model_copy(update={"best_metric": metric})
    run = replace(run, config=config, summary=run.summary | {"best": best})
    texts = page_of(run, tmp_path / "report.html").texts
    title = {"top1": "top-1", "top5": "top-5"}.get(metric, metric)
    place = texts.index("best")
    assert texts[place + 1 : place + 3] == [shown, f"chosen by {title}, at epoch 1"]


def test_a_page_that_would_be_too_large_is_refused(run_of, tmp_path):
    run = run_of(NAMES)
    facts = json.loads((run.path / "evaluation.json").read_text())
    facts["worst"][0]["picture"] = f"data:image/png;base64,{'A' * MOST}"
    with pytest.raises(UserError, match="the page would have"):
        write_run_page(replace(run, evaluation=facts), tmp_path / "report.html")


def test_a_picture_is_no_address(run_of, tmp_path):
    """evaluation.json may come from elsewhere: what it calls a picture is shown only if it is one."""
    run = run_of(NAMES)
    run.evaluation["worst"][0]["picture"] = "http://example.org/x.png"
    assert "http://example.org/x.png" not in page_of(run, tmp_path / "report.html").addresses


def test_numbers_for_people():
    assert [number(None), number(1_234_567), number(78.301), number(0.5, 4)] == [
        "–",
        "1,234,567",
        "78.30",
        "0.5000",
    ]
    assert [duration(s) for s in (None, 8.25, 59.99, 843, 7500)] == [
        "–", "8.2 s", "60.0 s", "14 min 3 s", "2 h 5 min",
    ]  # fmt: skip


def test_a_template_that_lacks_a_value_is_no_page():
    with pytest.raises(Exception, match="is undefined"):
        render("run.html")
