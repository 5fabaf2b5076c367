# SPDX-License-Identifier: Apache-2.0
"""A page of HTML from a template. Every text is escaped, and the page asks for nothing outside of itself."""

import functools
from typing import Any

import jinja2

from ..common.errors import UserError

MOST = 2_000_000  # bytes of a page


def render(template: str, **values: Any) -> str:
    """The page that a template of this package makes. Raises UserError: it is larger than MOST."""
    # A path need not be valid UTF-8, what is written must be.
    text = _environment().get_template(template).render(**values).encode("utf-8", "replace").decode("utf-8")
    if (size := len(text.encode())) > MOST:
        raise UserError(
            f"the page would have {size:,} bytes, allowed: {MOST:,}; give fewer runs, or move "
            "evaluation.json out of the run's folder"
        )
    return text


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"number": number, "duration": duration}
    return made


def number(value: float | int | None, digits: int = 2) -> str:
    """`78.30`, `1,236,680`; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """`8.3 s`, `14 min 3 s`, `2 h 5 min`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
