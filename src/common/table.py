# SPDX-License-Identifier: Apache-2.0
"""Short tables for people, above the one JSON object for programs."""

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[object]], *, indent: int = 0) -> str:
    """Rows of cells as lines, each column as wide as its widest cell. A line has no blanks at its end."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return as_text(" " * indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)


def as_text(lines: Iterable[str]) -> str:
    """Lines as a terminal takes them: a file name need not be valid UTF-8, what is printed must be."""
    return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")
