# SPDX-License-Identifier: Apache-2.0
"""The flags of a retrieval evaluation, and what it shows."""

import argparse

import pytest

from src.common.errors import UserError
from src.retrieval.door import _rows, check_flags


def test_what_people_see():
    metrics = {"mAP": 50.0, "images": 3, "mAP_by_kind": {"crop": 25.0}}
    rows = [("mAP", "50.00"), ("images", "3"), ("mAP of crop", "25.00")]
    assert list(_rows(metrics)) == rows


def _flags(**given):
    names = ("protocol", "rotations", "distractors", "sheet", "predictions", "pictures")
    return argparse.Namespace(**dict.fromkeys(names) | given)


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "png"])
def test_a_sheet_is_a_png_by_name_too(name):
    with pytest.raises(UserError, match=f"--sheet: {name} given, allowed: a name that ends in .png"):
        check_flags(_flags(task="retrieval", sheet=name), ["--data_path=set"])


@pytest.mark.parametrize(
    ("task", "flag", "other"),
    [("retrieval", "pictures", "classification"), ("classification", "sheet", "retrieval")],
)
def test_flags_of_another_task_are_refused(task, flag, other):
    with pytest.raises(UserError, match=f"--{flag}: x given, allowed: only with --task {other}"):
        check_flags(_flags(task=task, **{flag: "x"}), ["--data_path=set"])
