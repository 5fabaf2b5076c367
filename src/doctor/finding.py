# SPDX-License-Identifier: Apache-2.0
"""One line of the report: what was looked at, whether it will do, and the mend."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..common.errors import UserError
from ..common.table import as_text

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        name: what was looked at.
        state: `ok`; `warning`: it works, but less well or untested; `failure`: it will not work.
        what: what is there.
        mend: what to do about it; empty if `ok`.
    """

    name: str
    state: State
    what: str
    mend: str = ""


def ok(name: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", what)


def warning(name: str, what: str, mend: str) -> Finding:
    """It works, but less well than it could, or nobody has tested it."""
    return Finding(name, "warning", what, mend)


def failure(name: str, what: str, mend: str) -> Finding:
    """It will not work before it is mended."""
    return Finding(name, "failure", what, mend)


def refused(name: str, error: UserError, mend: str) -> Finding:
    """The failure that an error tells: `what; its own mend`, or `mend` where it has none."""
    what, _, own = str(error).partition("; ")
    return failure(name, what, own or mend)


def in_words(findings: Iterable[Finding]) -> str:
    """A line for each finding, and one for its mend below it."""
    findings = list(findings)
    wide = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<7}  {finding.name:<{wide}}  {finding.what}")
        if finding.mend:
            lines.append(f"{'':<7}  {'':<{wide}}  mend: {finding.mend}")
    return as_text(lines)
