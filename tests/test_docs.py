# SPDX-License-Identifier: Apache-2.0
"""The pages of docs: a summary in Chinese, an index that has all of them, and links that lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.tables import pages
from tests.helpers.commands import ROOT, named

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = pages()
OF_OTHERS = ("_ARRAY_API", "Load dynamic library", "mind ir version")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def summary_of(text: str) -> str:
    """What stands in the quotation right below the title; empty where there is none."""
    found = re.match(r"# .+\n\n((?:> .*\n)+)\n", text)
    return found[1] if found else ""


def sentences_of(summary: str) -> int:
    """In Chinese; one that is not in Chinese has none."""
    return summary.count("。") if summary.startswith("> **摘要**：") and CHINESE.search(summary[9:]) else 0


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links_of(page: Path) -> list[str]:
    """Links to files that are not there, and to headings that a page does not have."""
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)|<img src=\"([^\"]+)\"", page.read_text()):
        name, _, anchor = (link[0] or link[1]).partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link[0] or link[1])
    return broken


def texts_of_code() -> str:
    """What the code says, each text as parts between which something is put in."""
    texts = [path.read_text() for path in (ROOT / "scripts").glob("*.sh")]
    for path in (ROOT / "src").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        texts += [
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(texts)


def messages_of(page: Path) -> list[str]:
    """What stands as a message in the first column of its tables."""
    cells = re.findall(r"^\| (.*?) \|", page.read_text(), re.MULTILINE)
    quoted = [text for cell in cells for text in re.findall(r"`([^`]*[a-z] [^`]*)`", cell)]
    return [text for text in quoted if not text.startswith(("--", *OF_OTHERS))]


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_a_page_begins_with_a_summary_in_chinese_of_two_to_five_sentences(page):
    assert 2 <= sentences_of(summary_of(page.read_text())) <= 5


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page):
    assert broken_links_of(page) == []


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_every_code_file_that_a_page_names_is_there(page):
    names = re.findall(
        r"`((?:src|tests|configs|scripts|benchmarks)/[\w/]+\.(?:py|yaml|sh))", page.read_text()
    )
    assert [name for name in names if "NAME" not in name and not (ROOT / name).is_file()] == []


def test_messages_that_the_page_of_faults_quotes_are_said():
    said, messages = texts_of_code(), messages_of(ROOT / "docs" / "faq.md")
    parts = [part.strip() for text in messages for part in re.split(r"\.\.\.|\b[A-Z]+\b", text)]
    assert [part for part in parts if part not in said] == []
    assert len(messages) > 15


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in DOCS if page.name != "README.md" and f"]({page.name})" not in index] == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("# A\n\n> **摘要**：本页。两句。\n\n", 2),
        ("# A\n\n> **摘要**：本页。\n> 三句。完。\n\n", 3),
        ("# A\n\n> **摘要**：This page. It is short.\n\n", 0),
        ("# A\n\nplain\n\n> **摘要**：本页。两句。\n\n", 0),
    ],
)
def test_sentences_of_a_summary(text, sentences):
    assert sentences_of(summary_of(text)) == sentences


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        '# Of `code`\n[a](a.md#of-code) [b](b.md) [c](#none) [d](https://none) <img src="e.png">\n'
        "```text\n# no heading\n```\n[f](#no-heading)\n"
    )
    assert broken_links_of(page) == ["b.md", "#none", "e.png", "#no-heading"]
