# SPDX-License-Identifier: Apache-2.0
"""The pages say what the records say."""

import re
from string import Formatter

import pytest

from benchmarks import tables
from benchmarks.record import RECORDS
from src.common.errors import UserError
from tests.helpers.commands import named

PAGES = tables.pages()
MARKED = [page for page in PAGES if "<!-- table: " in page.read_text()]


def records_of(section: str) -> set[str]:
    """The records from which the marked places of a section come."""
    found = set()
    for kind, name in re.findall(r"<!-- (table|figure): (.+?) -->", section):
        if kind == "table" and name.startswith(tables.INFERENCE):
            found.add("inference")
        else:
            fields = Formatter().parse(tables.template_of(kind, name))
            found |= {field.partition(".")[0] for _, field, _, _ in fields if field}
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_says_what_the_records_say(page):
    text = page.read_text()
    assert tables.filled(text) == text, "run: python -m benchmarks.tables"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_marker_is_closed(page):
    text = page.read_text()
    for kind in ("table", "figure"):
        ends = re.findall(rf"<!-- ({kind}: |/{kind})", text)
        assert ends == [f"{kind}: ", f"/{kind}"] * (len(ends) // 2)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_section_that_names_a_record_takes_its_figures_from_it(page):
    for section in re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE):
        linked = set(re.findall(r"benchmarks/records/(\w+)\.json", section))
        assert linked <= records_of(section), section.partition("\n")[0]


def test_every_record_and_every_template_is_shown():
    text = "".join(page.read_text() for page in PAGES)
    assert records_of(text) == {path.stem for path in RECORDS.glob("*.json")}
    shown = set(re.findall(r"<!-- table: (\w+) -->", text))
    assert shown == {path.stem for path in tables.TEMPLATES.glob("*.md")}


@pytest.fixture
def records(monkeypatch):
    known = {"a": {"mean": 0.9449, "of two": [{"bytes": 26_292_480}, {"bytes": 1}]}}
    monkeypatch.setattr(tables, "record_of", known.__getitem__)


def test_figures_in_their_places(records):
    template = "{a.mean:.1%} and {a.of two.0.bytes:,.1f/1e6} MB, {a.mean}"
    assert tables.with_figures(template) == "94.5 % and 26.3 MB, 0.9449"
    page = (
        "<!-- figure: {a.mean:.2f} -->.8<!-- /figure --><!-- figure: {a.of two.1.bytes} --><!-- /figure -->"
    )
    once = page.replace(".8", "0.94").replace("} --><!--", "} -->1<!--")
    assert tables.filled(page) == once == tables.filled(once)


@pytest.mark.parametrize("field", ["a.median", "a.of two.2", "a.of two.x", "a.mean.x"])
def test_a_figure_that_a_record_lacks_is_named(records, field):
    with pytest.raises(UserError, match=rf"records/a.json: no {field[-1]}|records/a.json: no median"):
        tables.with_figures(f"{{{field}}}")


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("figure: {no_record.x}", "records/no_record.json: no such record"),
        ("table: no_table", "table no_table: not in benchmarks/templates, which has binary_twin, "),
        (
            "table: inference.no_text",
            "table inference.no_text: benchmarks.inference_page has binary peer, ",
        ),
    ],
)
def test_a_marker_of_nothing_is_refused(marker, said):
    with pytest.raises(UserError, match=said):
        tables.filled(f"<!-- {marker} --><!-- /{marker.partition(':')[0]} -->")


def test_the_command_writes_what_differs_and_names_a_page_that_it_cannot_fill(tmp_path, monkeypatch, capsys):
    good, bad = tmp_path / "a.md", tmp_path / "b.md"
    good.write_text("<!-- figure: {weak_scaling.efficiency.n} -->?<!-- /figure -->\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["tables"])
    tables.main()
    assert capsys.readouterr().out == "written: a.md\n"
    tables.main()
    assert capsys.readouterr().out == "" and "-->3<!--" in good.read_text()
    bad.write_text("<!-- table: none --><!-- /table -->")
    with pytest.raises(UserError, match=r"^b\.md: table none: not in "):
        tables.main()
