# SPDX-License-Identifier: Apache-2.0
"""Writes the figures of the records into README.md and the pages of docs.

    python -m benchmarks.tables             # after a record or a template has changed

A page marks what comes from a record by two comments, which are not shown:

    <!-- table: speed -->...<!-- /table -->
    <!-- figure: {weak_scaling.efficiency.median:.0%} -->94 %<!-- /figure -->

A table is a file of benchmarks/templates, or a text of benchmarks.inference_page. `figure` holds its
template itself. In both, {RECORD.KEY.KEY:FORMAT} is a number of benchmarks/records/RECORD.json; a KEY of a
list is a place in it, and `.1f/1e6` divides by 1e6 first. What stands between the comments is replaced.
"""

import json
import re
import string
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import inference_page
from benchmarks.record import RECORDS, ROOT, end_with, parser

TEMPLATES = ROOT / "benchmarks" / "templates"
INFERENCE = "inference."
_MARKED = re.compile(r"(<!-- (table|figure): (.+?) -->)(.*?)(<!-- /\2 -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page of Markdown that the repository shows."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def filled(text: str) -> str:
    """A page with what it marks as the records say.

    Raises:
        UserError: a marker names a table, a record or a figure that there is not.
    """
    return _MARKED.sub(_replaced, text)


def template_of(kind: str, name: str) -> str:
    """The text with the places of figures that a marker means."""
    from src.common.errors import UserError

    if kind == "figure":
        return name
    path = TEMPLATES / f"{name}.md"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in TEMPLATES.glob("*.md")))
        raise UserError(f"table {name}: not in benchmarks/templates, which has {known}")
    return path.read_text().strip()


def with_figures(template: str) -> str:
    """A template with its figures.

    Raises:
        UserError: a record lacks one.
    """
    return _Figures().vformat(template, (), {})


@cache
def record_of(name: str) -> dict[str, Any]:
    from src.common.errors import UserError

    path = RECORDS / f"{name}.json"
    if not path.is_file():
        raise UserError(f"benchmarks/records/{name}.json: no such record; run python -m benchmarks.{name}")
    return json.loads(path.read_text())


class _Figures(string.Formatter):
    """`str.format`, whose names are places in the records."""

    def get_field(self, field_name, args, kwargs):
        from src.common.errors import UserError

        record, *keys = field_name.split(".")
        value = record_of(record)
        for key in keys:
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (LookupError, TypeError, ValueError):
                raise UserError(f"benchmarks/records/{record}.json: no {key} for {{{field_name}}}") from None
        return value, field_name

    def format_field(self, value, format_spec):
        spec, _, unit = format_spec.partition("/")
        text = format(value / float(unit) if unit else value, spec)
        return text.replace("%", " %") if spec.endswith("%") else text


def _replaced(place: re.Match) -> str:
    begin, kind, name, _, end = place.groups()
    if kind == "table" and name.startswith(INFERENCE):
        text = _of_inference(name)
    else:
        text = with_figures(template_of(kind, name))
    return f"{begin}\n\n{text}\n\n{end}" if "\n" in text else f"{begin}{text}{end}"


def _of_inference(name: str) -> str:
    from src.common.errors import UserError

    texts = inference_page.tables(record_of("inference"))
    if name.removeprefix(INFERENCE) not in texts:
        raise UserError(f"table {name}: benchmarks.inference_page has {', '.join(texts)}")
    return texts[name.removeprefix(INFERENCE)]


def main() -> None:
    parser(__doc__).parse_args()

    from src.common.errors import UserError
    from src.common.files import write_text

    for page in pages():
        text = page.read_text()
        try:
            new = filled(text)
        except UserError as error:
            raise UserError(f"{page.relative_to(ROOT)}: {error}") from error
        if new != text:
            write_text(page, new)
            print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    end_with(main)
