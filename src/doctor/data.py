# SPDX-License-Identifier: Apache-2.0
"""Whether a data path is something that a training can open."""

from pathlib import Path

from ..common.errors import UserError
from ..common.files import relative_to
from .finding import Finding, failure, ok, refused
from .software import INSTALL


def check_data(data_path: Path) -> Finding:
    """What is there, found and opened as a training does it; pictures in class folders are listed only."""
    try:
        return _opened(data_path)
    except OSError as error:
        return failure("data", f"{data_path} cannot be read ({error.strerror})", "check its permissions")


def _opened(data_path: Path) -> Finding:
    if not data_path.is_dir():
        return failure(
            "data",
            f"{data_path}{relative_to(data_path)} is no folder",
            "give the data set's folder as --data_path, or make one: python -m src.data.prepare --help",
        )
    try:
        from ..data.sources import open_splits
    except ImportError as error:
        reason = f"a package is missing or broken ({error.name or type(error).__name__})"
        return failure("data", f"{data_path} cannot be looked at: {reason}", INSTALL)
    try:
        train, test = open_splits(data_path)
    except UserError as error:
        return refused("data", error, "docs/data.md lists the layouts that are read")
    sizes = f"{len(train):,} training and {len(test):,} test images"
    return ok("data", f"{data_path}: {sizes}, {len(train.class_names)} classes")
