# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md and docs, as a reader would copy them."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "text", "yaml", "json")
MARK = re.compile(r"#.*\b(needs a card|needs cards|needs a network|takes hours)\b")
_FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_PARTS = re.compile(r"""((?:"[^"]*"|'[^']*'|\S#|[^#"'])*)(#.*)?""")  # a command, its comment
# These do what other tests do, this one among them.
_HELP_ALONE = re.compile(r"bash scripts/(quickstart|test)\.sh")
# These measure for hours, or say what is amiss with the machine.
_CHECKED = re.compile(r"python -m (benchmarks\.|src\.tools\.doctor)")
_INLINE = re.compile(
    r"`((?:python -m (?:src|benchmarks)\.[^\s`]+|python \w+\.py|bash scripts/[^\s`]+)\s[^`]+)`"
)


@dataclass(frozen=True)
class Command:
    """A command of a page. `mark`: what it needs, as its comment says, else empty; `code`: Python's input."""

    page: str
    line: int
    text: str
    mark: str = ""
    code: str = ""

    def __str__(self):
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def kind(self) -> str:
        """What a test does of it: `run`, `checked` up to its work, or asked for `help` alone."""
        if _HELP_ALONE.match(self.text):
            return "help"
        return "checked" if self.mark or _CHECKED.match(self.text) else "run"

    @property
    def words(self) -> list[str]:
        """Without what usage lines put in brackets."""
        return [word for word in shlex.split(self.text) if not word.startswith("[")]


def pages() -> list[Path]:
    """README.md in its languages and the pages of docs."""
    return sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path) -> Iterator[tuple[str, int, str]]:
    """Language, first line and text of each fenced block."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield found[1], text.count("\n", 0, found.start()) + 2, found[2]


def commands_of(page: Path) -> list[Command]:
    """Those of the fenced blocks, in order; a block of Python is one.

    A comment with one of the marks holds for its command; on a line of its own for those below it in the
    block.
    """
    name, found = os.path.relpath(page, ROOT), []
    for language, line, text in fences(page):
        if language == "bash":
            found += _of_shell(name, line, text)
        elif language == "python":
            found.append(Command(name, line, "python", _mark(text), text))
    return found


def inline_commands_of(page: Path) -> list[Command]:
    """Those inside of sentences that have an argument. `NAME` is any name: such a one is no command."""
    name = os.path.relpath(page, ROOT)
    text = re.sub(_FENCE, lambda block: "\n" * block[0].count("\n"), page.read_text())
    return [
        Command(name, text.count("\n", 0, one.start()) + 1, " ".join(one[1].split()), "in a sentence")
        for one in _INLINE.finditer(text)
        if "NAME" not in one[1] and "..." not in one[1]
    ]


def _mark(text: str) -> str:
    found = MARK.search(text)
    return found[1] if found else ""


def _of_shell(page: str, first: int, text: str) -> Iterator[Command]:
    lines, mark = iter(enumerate(text.splitlines(), first)), ""
    for number, line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1].strip()
        command, comment = (part or "" for part in _PARTS.fullmatch(line).groups())
        if not command.strip():
            mark = _mark(comment) or mark
            continue
        code = ""
        if here := re.search(r"\s*<<\s*'(\w+)'\s*$", command):
            command, body = command[: here.start()], []
            while (inside := next(lines)[1]) != here[1]:
                body.append(inside)
            code = "\n".join(body) + "\n"
        yield Command(page, number, command.strip(), _mark(comment) or mark, code)
