# SPDX-License-Identifier: Apache-2.0
"""Runs on one page: what is one line, its figures by hand, and nothing that breaks out of its place."""

import json
from dataclasses import replace

import numpy as np
import pytest

from src.common.errors import UserError
from src.experiments.comparison import grouped, mean_curve, read_run, write_comparison
from src.reports.page import MOST
from src.tools import report
from src.zoo import config_class_of
from tests.experiments.fake_runs import fake_run
from tests.helpers.doors import call_main, error_of
from tests.helpers.pages import HOSTILE, Page


@pytest.fixture
def run_in(tmp_path):
    """run_in(name, seed, top1, **keys) -> a finished run whose config has these keys."""

    def make(name, seed=0, top1=(50.0, 60.0), **keys):
        folder = tmp_path / name
        fake_run(folder, seed=seed, top1=top1)
        keys = {"model": "resnet9", "seed": seed, **keys}
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in keys.items()]
        (folder / "config.yaml").write_text("".join(lines))
        return read_run(folder, config_class_of)

    return make


def _names(runs):
    return [(group.name, len(group.runs)) for group in grouped(runs)]


def test_runs_that_differ_in_their_seed_alone_are_one_line(run_in):
    runs = [
        run_in(f"base-{seed}", seed, run_name=f"base-{seed}", output_path="x" * seed) for seed in (9, 10, 11)
    ]
    runs += [run_in("fast-0", lr=0.9), run_in("fast-1", 1, lr=0.9), run_in("alone", lr=1.1)]
    assert _names(runs) == [("base", 3), ("fast", 2), ("alone", 1)]
    assert _names(runs[1:3]) == [("base", 2)], "10 and 11 have a 1 in common, which is no part of a name"


def test_seeds_in_a_folder_have_its_name(run_in):
    runs = [
        run_in(f"{name}/seed_{seed}", seed, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2)) for seed in (0, 1)
    ]
    assert _names(runs) == [("a", 2), ("b", 2)]
    assert _names(runs[:1]) == [("a/seed_0", 1)]


def test_lines_of_one_name_are_told_apart(run_in):
    """Names that train.py gives begin with one date."""
    lr = {"120000": 0.1, "130000": 0.1, "140000": 0.2, "150000": 0.2}
    runs = [run_in(f"resnet9-20260101-{time}", seed, lr=lr[time]) for seed, time in enumerate(lr)]
    assert _names(runs) == [("resnet9-20260101 (1)", 2), ("resnet9-20260101 (2)", 2)]
    runs = [run_in(f"{place}/same", lr=lr) for place, lr in (("x", 0.1), ("y", 0.2))]
    assert _names(runs) == [("x/same", 1), ("y/same", 1)]
    runs = [
        run_in(f"{place}/arm/seed_{seed}", seed, lr=lr)
        for place, lr in (("x", 0.3), ("y", 0.4))
        for seed in (0, 1)
    ]
    assert _names(runs) == [("x/arm", 2), ("y/arm", 2)]


def test_one_seed_several_times_is_said(run_in, tmp_path):
    runs = [run_in(name, seed) for name, seed in (("a-1", 0), ("a-2", 0), ("a-3", 1))]
    (row,) = write_comparison(runs, tmp_path / "page.html")
    assert row["repeats"] == ["seed 0 twice"]
    texts = Page(tmp_path / "page.html").texts
    assert "3 (seed 0 twice)" in [" ".join(text.split()) for text in texts]
    assert "Comparison of 1 recipe" in texts


def test_long_values_that_differ_only_at_their_end_differ(run_in, tmp_path):
    runs = [run_in(name, data_path=f"/{'x' * 200}/{name}") for name in "ab"]
    write_comparison(runs, tmp_path / "page.html")
    texts = Page(tmp_path / "page.html").texts
    assert "In nothing but the seed." not in texts
    place = texts.index("data_path")
    assert [text[-2:] for text in texts[place + 1 : place + 3]] == ["/a", "/b"]


def test_a_config_that_this_version_refuses_is_named(run_in, tmp_path):
    run = run_in("a")
    (run.path / "config.yaml").write_text("model: resnet9\nlr: -1\n")
    with pytest.raises(UserError, match=f"^{run.path}/config.yaml: lr: -1"):
        read_run(run.path, config_class_of)


@pytest.mark.parametrize("keys", [{"data_path": "/other"}, {"epochs": 3.0}, {"split_seed": 1}])
def test_other_data_is_another_line(run_in, keys):
    assert len(grouped([run_in("a"), run_in("b", **keys)])) == 2


def test_another_number_of_cards_is_another_line(run_in):
    run = run_in("a")
    more = replace(run, summary=run.summary | {"device": {"target": "CPU", "cards": 8}})
    assert [group.values["cards"] for group in grouped([run, more])] == [1, 8]


def test_the_figures_by_hand(run_in, tmp_path):
    runs = [run_in(f"a{seed}", seed, (40.0, top1)) for seed, top1 in enumerate((60.0, 62.0, 64.0))]
    runs += [run_in(f"b{seed}", seed, (45.0, top1), lr=0.9) for seed, top1 in enumerate((70.0, 71.0))]
    first, second = write_comparison(runs, tmp_path / "page.html")
    assert first["figures"]["top1"] == {"n": 3, "mean": 62.0, "sd": 2.0, "min": 60.0, "max": 64.0}
    assert second["difference"]["mean"] == 8.5 and first["difference"] is None
    assert 0 < second["difference"]["low"] < 8.5 < second["difference"]["high"]
    page = Page(tmp_path / "page.html")
    assert {"62.00 % ± 2.00", "60.00 to 64.00", "+8.50", "a", "b"} <= set(page.texts)
    place = page.texts.index("lr")
    assert page.texts[place + 1 : place + 3] == ["0.4", "0.9"]
    assert page.tags.count("svg") == 4 and page.size < MOST
    place = page.texts.index("cpu_count")
    assert page.texts[place + 1 : place + 3] == ["1, 2", "1, 2"]


def test_a_run_that_has_not_ended_has_no_figures(run_in, tmp_path):
    ended, other = run_in("a"), run_in("b", lr=0.9)
    for runs in ([ended, replace(other, summary=None)], [replace(other, summary=None, records=[]), ended]):
        rows = write_comparison(runs, tmp_path / "page.html")
        assert sorted(row["finished"] for row in rows) == [0, 1]
        assert {"0 of 1", "not ended"} <= set(Page(tmp_path / "page.html").texts)


def test_no_name_breaks_out_of_its_place(run_in, tmp_path):
    runs = [
        run_in(name.replace("/", "|"), lr=k + 1.0, data_path=f"/{name}") for k, name in enumerate(HOSTILE)
    ]
    write_comparison(runs, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert (page.alerts, page.addresses) == ([], [])
    assert {name.replace("/", "|") for name in HOSTILE} <= set(page.texts)
    assert not {"img", "script"} & set(page.tags)


def test_models_of_other_keys_are_compared(run_in, tmp_path):
    runs = [run_in("a"), run_in("b", model="birealnet18")]
    write_comparison(runs, tmp_path / "page.html")
    texts = Page(tmp_path / "page.html").texts
    place = texts.index("input_whitening")
    assert texts[place + 1 : place + 3] == ["none", "–"]


def test_curves_are_means_of_what_all_runs_have():
    def records(values):
        return [{"images": 10 * k, "epoch": k / 2, "loss": value} for k, value in enumerate(values, start=1)]

    runs = [records([4.0, 3.0, 2.0]), records([5.0, 4.0, 3.5, 9.0])]
    curve = mean_curve(runs, "loss")
    np.testing.assert_allclose(curve[:, :2], [[0.5, 4.5], [1, 3.5], [1.5, 2.75]])
    np.testing.assert_allclose(curve[:, 2], [0.5**0.5, 0.5**0.5, 1.5 / 2**0.5])
    np.testing.assert_array_equal(mean_curve(runs[:1], "loss")[:, 2], 0)
    assert mean_curve(runs, "lr").shape == mean_curve([[]], "loss").shape == (0, 3)


def test_of_many_records_neighbours_are_averaged():
    records = [{"images": k, "epoch": k / 7, "loss": float(k)} for k in range(1, 206)]
    curve = mean_curve([records], "loss")
    assert len(curve) == 68 and curve[-1, 1] == 204 and curve[0, 1] == 3


def test_the_command_writes_a_page_of_one_run_and_of_several(run_in, tmp_path):
    one, other = (str(run_in(name, lr=lr).path) for name, lr in (("a", 0.1), ("b", 0.2)))
    assert json.loads(call_main(report.main, one, one).stdout) == {"report": f"{one}/report.html"}
    assert "a" in Page(tmp_path / "a" / "report.html").texts
    (tmp_path / "link").symlink_to(one)
    again = [f"{one}/../a", str(tmp_path / "link")]
    assert json.loads(call_main(report.main, one, *again).stdout) == {"report": f"{one}/report.html"}
    output = tmp_path / "new" / "page.html"
    answer = json.loads(call_main(report.main, one, other, "--output", str(output)).stdout)
    assert answer["report"] == str(output) and [row["name"] for row in answer["rows"]] == ["a", "b"]
    assert "Comparison of 2 recipes" in Page(output).texts


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("summary.json", "{"), ("summary.json", '{"final": {}}'), ("summary.json", "[]"),
        ("summary.json", '{"final": {"loss": 1}, "environment": {}, "device": {"cards": 1}, "epochs": 1, '
                         '"wall_seconds": 1, "peak_memory_mib": 1}'),
        ("metrics.jsonl", '{"images": 3, "epoch": 0}\n'), ("starts.json", '[{"device": 1}]'),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(run_in, tmp_path, file, text):
    runs = [run_in("a"), run_in("b")]
    (runs[0].path / file).write_text(text)
    ended = call_main(report.main, *(str(run.path) for run in runs), "--output", str(tmp_path / "c.html"))
    said = error_of(ended)
    assert f"{runs[0].path}/{file}" in said and not (tmp_path / "c.html").exists()
    for other in {"summary.json", "metrics.jsonl", "starts.json", "evaluation.json"} - {file}:
        assert other not in said


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run"):
        read_run(tmp_path / "none", config_class_of)
