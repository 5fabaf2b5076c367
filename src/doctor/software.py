# SPDX-License-Identifier: Apache-2.0
"""Python and the packages, compared with requirements.txt."""

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..model_utils.environment import version_of
from .finding import Finding, failure, ok, warning

ROOT = Path(__file__).parents[2]
TESTED_PYTHON, MOST_PYTHON = (3, 11), (3, 12)  # MindSpore 2.10 is built for Python 3.9 to 3.12


def check_python(
    version: tuple[int, ...] = sys.version_info[:3], prefix: str = sys.prefix, root: Path = ROOT
) -> Iterator[Finding]:
    """The version, and whether this is the environment that the scripts start."""
    text, mend = ".".join(map(str, version)), "install Python 3.11; scripts/quickstart.sh makes .venv with it"
    what = f"{text} ({sys.executable})"
    if version[:2] < TESTED_PYTHON:
        yield failure("Python", f"{what}: 3.11 is needed", mend)
    elif version[:2] > MOST_PYTHON:
        yield failure("Python", f"{what}: MindSpore has no package for it", mend)
    elif version[:2] != TESTED_PYTHON:
        yield warning("Python", f"{what}: only 3.11 is tested", mend)
    else:
        yield ok("Python", what)
    venv = root / ".venv"
    if (venv / "bin" / "python").exists() and os.path.realpath(prefix) != os.path.realpath(venv):
        yield warning(
            "environment",
            f"this Python is not the one of {venv}, which the scripts start",
            f"call {venv}/bin/python -m src.tools.doctor, or set PYTHON={sys.executable} for the scripts",
        )


def pinned(root: Path = ROOT) -> dict[str, str]:
    """Package -> version: of requirements.txt, or of the installed package quartet."""
    try:
        lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        try:
            lines = importlib.metadata.requires("quartet") or []
        except importlib.metadata.PackageNotFoundError:
            lines = []
    found = (re.match(r"\s*([\w.-]+)\s*==\s*([^\s;#]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def install_command(root: Path = ROOT) -> str:
    """What installs the pinned packages, which a clone has in a file and the installed package in itself."""
    pins = " ".join(f"{name}=={version}" for name, version in pinned(root).items())
    there = (root / "requirements.txt").is_file()
    return f"pip install {pins}" if pins and not there else "pip install -r requirements.txt"


INSTALL = install_command()


def installed(names: Mapping[str, str]) -> dict[str, str | None]:
    """Package -> its version here; None: it is not installed."""
    return {name: version_of(name) for name in names}


def check_packages(wanted: Mapping[str, str], found: Mapping[str, str | None]) -> Iterator[Finding]:
    """MindSpore and numpy in a line each, the others in one.

    Args:
        wanted: package -> pinned version.
        found: package -> version here, None where there is none.
    """
    yield _of_package("MindSpore", "mindspore", wanted, found)
    numpy = found.get("numpy")
    if numpy and int(numpy.partition(".")[0]) >= 2:
        yield failure(
            "numpy",
            f"{numpy}: MindSpore is built for numpy 1, and parts of it fail with numpy 2",
            f'pip install "numpy=={wanted.get("numpy", "1.26.4")}"',
        )
    else:
        yield _of_package("numpy", "numpy", wanted, found)
    others = [name for name in wanted if name not in ("mindspore", "numpy")]
    missing = [name for name in others if found.get(name) is None]
    differing = [f"{name} {found[name]} ({wanted[name]})" for name in others if _differs(name, wanted, found)]
    if missing:
        yield failure("packages", f"not installed: {', '.join(missing)}", INSTALL)
    elif differing:
        what = f"another version than the one of requirements.txt: {', '.join(differing)}"
        yield warning("packages", what, INSTALL)
    elif others:
        yield ok("packages", f"{len(others)} others as in requirements.txt")


def _differs(name: str, wanted: Mapping[str, str], found: Mapping[str, str | None]) -> bool:
    return found.get(name) not in (None, wanted[name])


def _of_package(title: str, name: str, wanted: Mapping[str, str], found: Mapping[str, str | None]) -> Finding:
    if found.get(name) is None:
        return failure(title, "not installed", INSTALL)
    if name in wanted and _differs(name, wanted, found):
        return warning(title, f"{found[name]}: {wanted[name]} is tested", INSTALL)
    return ok(title, str(found[name]))
