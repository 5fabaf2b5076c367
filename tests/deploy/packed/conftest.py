# SPDX-License-Identifier: Apache-2.0
"""A small program with a step of each kind, its card and its file."""

import copy
from pathlib import Path

import pytest

from src.deploy.packed.file import write_packed
from src.deploy.packed.program import Program
from tests.helpers.packed import random_program

CARD = {
    "model": "tiny",
    "class_names": ["ant", "bee", "cat", "dog", "elk"],
    "preparation": {"image_size": 16, "mean": [125.0, 123.0, 114.0], "std": [63.0, 62.0, 66.5]},
}


@pytest.fixture(scope="session")
def program() -> Program:
    return random_program()


@pytest.fixture
def facts() -> dict:
    return copy.deepcopy(CARD)


@pytest.fixture(scope="session")
def packed_file(program, tmp_path_factory) -> Path:
    """Not to be changed."""
    path = tmp_path_factory.mktemp("packed") / "model.packed"
    write_packed(path, program, CARD)
    path.chmod(0o444)
    return path
