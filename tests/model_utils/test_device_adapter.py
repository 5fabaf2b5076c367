# SPDX-License-Identifier: Apache-2.0
"""The device is chosen, joined and seeded; what cannot be set up is one line."""

import logging
import os

import mindspore as ms
import pytest

from src.common.errors import UserError
from src.model_utils import cpu, device_adapter
from src.model_utils.device_adapter import Device, set_up_device, worker_count


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("DEVICE_ID", "RANK_SIZE", "RANK_ID", "MS_WORKER_NUM", "MS_NODE_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch):
    """machine(available, rank=, size=) pretends; returns the calls that set_up_device makes."""

    def make(*available, default="Ascend", rank=0, size=1, join_error=None):
        calls = {}

        def init():
            calls["joined"] = True
            if join_error is not None:
                raise join_error

        monkeypatch.setattr(ms.hal, "is_available", lambda target: target in available)
        monkeypatch.setattr(ms, "get_context", lambda key: default)
        monkeypatch.setattr(ms, "set_device", lambda *target: calls.update(device=target))
        monkeypatch.setattr(ms, "set_seed", lambda seed: calls.update(seed=seed))
        monkeypatch.setattr(device_adapter, "use_fast_convolutions", lambda: calls.update(fast=True))
        monkeypatch.setattr(device_adapter.communication, "init", init)
        monkeypatch.setattr(device_adapter.communication, "get_rank", lambda: rank)
        monkeypatch.setattr(device_adapter.communication, "get_group_size", lambda: size)
        return calls

    return make


@pytest.mark.parametrize(("cores", "told"), [(1, [1]), (2, [])])
def test_mindspore_is_told_of_a_quota_only(machine, monkeypatch, cores, told):
    machine()
    threads = []
    monkeypatch.setattr(ms.device_context.cpu.op_tuning, "threads_num", threads.append)
    monkeypatch.setattr(device_adapter, "bound_cores", lambda: 2)
    monkeypatch.setattr(device_adapter, "usable_cores", lambda: cores)
    set_up_device("CPU")
    assert threads == told


def test_a_cpu_for_real():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert set_up_device("CPU", seed=11) == Device("CPU", rank=0, size=1)
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("device_target") == "CPU"
    assert ms.get_seed() == 11


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (("Ascend", "GPU", "CPU"), ("Ascend", 0)),
        (("GPU",), ("GPU", 0)),
        ((), ("CPU",)),
    ],
)
def test_auto_takes_the_first_that_is_there(machine, available, chosen):
    calls = machine(*available)
    assert set_up_device("auto").target == chosen[0]
    assert calls["device"] == chosen
    assert calls.get("fast", False) == (chosen[0] == "CPU")


def test_a_cpu_that_is_already_the_device_is_not_set_again(machine):
    calls = machine(default="CPU")
    assert set_up_device("CPU").target == "CPU"
    assert "device" not in calls


def test_a_launcher_says_which_card(machine, monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "3")
    calls = machine("Ascend")
    set_up_device("Ascend")
    assert calls["device"] == ("Ascend", 3)


def test_a_device_that_is_not_there(machine):
    machine()
    with pytest.raises(UserError) as caught:
        set_up_device("Ascend")
    message = str(caught.value)
    assert message.startswith("device_target Ascend is not available") and "--device_target CPU" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["TPU", "cpu", ""])
def test_a_device_that_nobody_knows(name):
    with pytest.raises(UserError, match=f"device_target: '{name}' given, allowed: one of auto, Ascend, GPU"):
        set_up_device(name)


def test_one_process_joins_nobody(machine):
    calls = machine()
    set_up_device("CPU", seed=5)
    assert calls == {"fast": True, "device": ("CPU",), "seed": 5}


def test_a_single_process_of_a_launcher_joins_too(machine, monkeypatch):
    monkeypatch.setenv("MS_ROLE", "MS_SCHED")
    monkeypatch.setenv("MS_WORKER_NUM", "1")
    calls = machine(rank=0, size=1)
    assert set_up_device("CPU") == Device("CPU", rank=0, size=1)
    assert calls["joined"]


def test_several_processes_join_and_differ_in_their_seed(machine, monkeypatch, caplog):
    monkeypatch.setenv("MS_WORKER_NUM", "4")
    calls = machine(rank=2, size=4)
    with caplog.at_level(logging.INFO, "quartet"):
        assert set_up_device("CPU", seed=10) == Device("CPU", rank=2, size=4)
    assert calls["joined"] and calls["seed"] == 12
    assert "running on CPU, rank 2 of 4" in caplog.text


def test_the_largest_seed_is_accepted_on_every_rank(machine, monkeypatch):
    monkeypatch.setenv("RANK_SIZE", "4096")
    set_seed = ms.set_seed
    machine(rank=4095, size=4096)
    monkeypatch.setattr(ms, "set_seed", set_seed)
    set_up_device("CPU", seed=4_000_000_000)
    assert ms.get_seed() == 4_000_004_095


@pytest.mark.parametrize("error", [RuntimeError("no scheduler\nC++ stack\nmore"), ValueError("no scheduler")])
def test_processes_that_cannot_join(machine, monkeypatch, error):
    monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.setenv("RANK_ID", "5")
    machine(join_error=error)
    with pytest.raises(UserError) as caught:
        set_up_device("CPU")
    message = str(caught.value)
    assert message.startswith(
        "rank 5 of 8 cannot join the others (no scheduler); start all of them with msrun"
    )
    assert len(message.splitlines()) == 1


def test_workers_are_the_cores_up_to_8(monkeypatch):
    monkeypatch.setattr(cpu, "_quota", lambda: cpu.NO_QUOTA)
    for cores, workers in [(1, 1), (6, 6), (8, 8), (192, 8)]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
        assert worker_count() == workers
