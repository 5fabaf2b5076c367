# SPDX-License-Identifier: Apache-2.0
"""The files that a repository is expected to have say what the rest of it says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_hooks_check_what_the_test_script_checks():
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repository["hooks"]
    ]
    called = re.findall(
        r"^(?:\"\$PYTHON\" -m |\.venv/bin/)((?:ruff|shellcheck) .*?)(?: \.| scripts/\*\.sh)$",
        (ROOT / "scripts" / "test.sh").read_text(),
        re.MULTILINE,
    )
    assert len(called) == 3 and [hook["entry"] for hook in hooks] == called
    pins = (ROOT / "requirements-dev.txt").read_text()
    for hook in hooks:
        (pin,) = hook["additional_dependencies"]
        assert re.search(rf"^{re.escape(pin)}\s", pins, re.MULTILINE), f"{pin} is not in requirements-dev.txt"


def test_the_citation_is_that_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"]
    assert citation["title"].endswith(PROJECT["description"])
    assert {"Apache-2.0"} == {citation["license"]}
    pages = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    papers = {row["url"] for row in citation["references"] if "arxiv" in row["url"]}
    assert all(url in pages for url in papers)
    assert len(papers) == 3


def test_the_issue_form_asks_for_the_doctor():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    assert {"name", "description", "body"} <= form.keys()
    doctor = next(part for part in form["body"] if part["id"] == "doctor")
    assert "`python -m src.tools.doctor`" in doctor["attributes"]["description"]
    assert doctor["validations"]["required"] is True
    assert len({part["id"] for part in form["body"]}) == len(form["body"])


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_their_links_and_tools_are_there(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / target).exists(), target
    for tool in re.findall(r"src\.tools\.(\w+)", text):
        assert (ROOT / "src" / "tools" / f"{tool}.py").is_file(), tool


def test_the_changelog_begins_with_what_is_not_released():
    titles = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
