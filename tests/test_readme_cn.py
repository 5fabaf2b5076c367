# SPDX-License-Identifier: Apache-2.0
"""README_CN.md keeps step with README.md: the same sections in order, the same commands and figures."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_HEADING = re.compile(r"^(#+) ", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections(page: str) -> list[tuple[int, list[str], list[str], set[str]]]:
    """Of each section the level of its heading, its commands, its figures and what it links to."""
    text = (ROOT / page).read_text()
    text = re.sub(r"^\[.*README.*\n", "", text, flags=re.MULTILINE)  # each names the other
    text = re.sub(r"<!--.*?-->", "", text)
    code = {}

    def kept(block: re.Match) -> str:
        code[f"block{len(code)}"] = block[1], block[2]
        return f"block{len(code) - 1}\n"

    text = _BLOCK.sub(kept, text)
    found = []
    starts = [*_HEADING.finditer(text)]
    for start, stop in zip(starts, [*(match.start() for match in starts[1:]), len(text)]):
        part = text[start.start() : stop]
        blocks = [code[name] for name in re.findall(r"block\d+", part)]
        links = {link for link in re.findall(r"\]\(([^)#]+)", part) if ":" not in link}
        words = re.sub(r"\]\([^)]*\)|`[^`]*`|block\d+|https?://\S+", " ", part)
        figures = sorted(re.findall(r"\d+(?:\.\d+)?", words))
        commands = [body for language, body in blocks if language != "text"]
        found.append((len(start[1]), commands, figures, links))
    return found


@pytest.fixture(scope="module")
def both():
    return sections("README.md"), sections("README_CN.md")


def test_they_have_the_same_sections_in_order(both):
    english, chinese = ([level for level, *_ in page] for page in both)
    assert english == chinese and len(english) > 10


def test_they_have_the_same_commands_figures_and_links(both):
    for number, (english, chinese) in enumerate(zip(*both, strict=True)):
        assert english[1] == chinese[1], f"commands of section {number}"
        assert english[2] == chinese[2], f"figures of section {number}"
        assert english[3] == chinese[3], f"links of section {number}"


def test_contents_lists_name_the_sections():
    for page in ("README.md", "README_CN.md"):
        text = (ROOT / page).read_text()
        anchors = re.findall(r"\]\(#([^)]+)\)", text)
        titles = [
            title.lower().replace(" ", "-").replace(",", "") for title in re.findall(r"^## (.+)$", text, re.M)
        ]
        assert anchors == titles
