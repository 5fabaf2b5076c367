# SPDX-License-Identifier: Apache-2.0
"""Card, rank and job come from the variables that launchers set."""

import pytest

from src.common.errors import UserError
from src.model_utils import local_adapter

NAMES = ("DEVICE_ID", "RANK_SIZE", "RANK_ID", "MS_WORKER_NUM", "MS_NODE_ID", "JOB_ID")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def _all():
    return (
        local_adapter.get_device_id(),
        local_adapter.get_device_num(),
        local_adapter.get_rank_id(),
        local_adapter.get_job_id(),
    )


def test_alone():
    assert _all() == (0, 1, 0, "local")


def test_a_rank_table_launcher(monkeypatch):
    for name, value in {"DEVICE_ID": "3", "RANK_SIZE": "8", "RANK_ID": "5", "JOB_ID": "17"}.items():
        monkeypatch.setenv(name, value)
    assert _all() == (3, 8, 5, "17")


def test_msrun(monkeypatch):
    monkeypatch.setenv("MS_WORKER_NUM", "2")
    monkeypatch.setenv("MS_NODE_ID", "1")
    assert _all() == (0, 2, 1, "local")


def test_a_rank_table_comes_before_msrun(monkeypatch):
    for name, value in {"RANK_SIZE": "8", "RANK_ID": "5", "MS_WORKER_NUM": "2", "MS_NODE_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert _all() == (0, 8, 5, "local")


def test_empty_variables_are_as_none(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert _all() == (0, 1, 0, "local")


@pytest.mark.parametrize("value", ["two", "-1", "1.5", " 1", "²"])
@pytest.mark.parametrize(
    ("name", "get"),
    [
        ("DEVICE_ID", local_adapter.get_device_id),
        ("RANK_SIZE", local_adapter.get_device_num),
        ("MS_WORKER_NUM", local_adapter.get_device_num),
        ("RANK_ID", local_adapter.get_rank_id),
        ("MS_NODE_ID", local_adapter.get_rank_id),
    ],
)
def test_what_is_no_whole_number_is_named(monkeypatch, name, get, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"variable {name} is {value!r}; a whole number of at least"):
        get()


def test_nobody_is_not_a_number_of_cards(monkeypatch):
    monkeypatch.setenv("RANK_SIZE", "0")
    with pytest.raises(UserError, match="at least 1"):
        local_adapter.get_device_num()
