# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything starts, in one clear line each."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.parallel.launch import checks
from src.parallel.launch import main as launch
from src.parallel.launch.start import Plan


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No variable of the environment says anything; the folder of devices is empty."""
    variables = [action.metavar for action in launch._flags()._actions if action.metavar]
    assert "NODE_NUM" in variables and "LOG_DIR" in variables
    for name in [*variables, "ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"]:
        monkeypatch.delenv(name, raising=False)
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(checks, "DEVICES", devices)
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)
    return devices


def refused(said, *words, **environment):
    """The launcher refuses these words with an error that says so, and makes no folder."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with pytest.raises(UserError, match=said) as caught:
            launch.main([*map(str, words), "--", "door.py"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert "\n" not in str(caught.value)
    assert not Path("logs").exists()


CPU = ("--workers", 2, "--device_target", "CPU")
GPU = ("--workers", 1, "--device_target", "GPU")


@pytest.mark.parametrize("name", ["NODE_NUM", "MAX_RESTARTS", "HANG_TIMEOUT", "MASTER_PORT", "BIND_CORES"])
def test_variables_must_be_whole_numbers(name):
    refused(rf"{name} is 'x'; a whole number (of at least|from) \d+", *CPU, **{name: "x"})


def test_a_port_or_an_address_that_there_cannot_be():
    refused("MASTER_PORT is '65536'; a whole number from 1024 to 65535 is needed", *CPU, MASTER_PORT="65536")
    refused(r"MASTER_ADDR server\.\.1 is no address", *CPU, MASTER_ADDR="server..1")


def test_the_places_of_servers_must_fit():
    refused("NODE_NUM is 2; NODE_RANK must be 0 to 1", *CPU, NODE_NUM="2")
    refused("NODE_NUM is 2; NODE_RANK must be 0 to 1", *CPU, NODE_NUM="2", NODE_RANK="2")
    refused("MASTER_ADDR must be the address of", *CPU, NODE_NUM="2", NODE_RANK="1")
    refused("NODE_RANK is 1 of 1 server", *CPU, NODE_RANK="1")
    elsewhere = {"NODE_NUM": "2", "MASTER_ADDR": "192.0.2.1"}
    refused(
        "192.0.2.1 is not an address of this server, and NODE_RANK is 0", *CPU, NODE_RANK="0", **elsewhere
    )
    here = {"NODE_NUM": "2", "MASTER_ADDR": "127.0.0.2"}
    refused("127.0.0.2 is an address of this server, and NODE_RANK is 1", *CPU, NODE_RANK="1", **here)


def test_a_busy_port_is_named():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        refused(f"port {port} of 127.0.0.1 is busy; give another MASTER_PORT", *CPU, MASTER_PORT=str(port))
    assert checks.is_free("127.0.0.1", port)


def test_free_ports_are_those_that_no_connection_is_given():
    port = checks.free_port("127.0.0.1")
    assert checks.LOWEST_PORT <= port <= checks.HIGHEST_PORT and checks.is_free("127.0.0.1", port)


def test_cards_must_be_there(clean):
    refused("no Ascend card on this server .* DEVICE_TARGET=CPU", "--workers", 1, "--device_target", "Ascend")
    refused("no GPU card .* python -m src.tools.doctor --device_target GPU says", *GPU)
    for name in ("davinci0", "davinci1", "davinci_manager", "nvidia0", "nvidiactl"):
        (clean / name).touch()
    refused("8 Ascend cards asked for, this server has 2", "--workers", 8, "--device_target", "Ascend")
    refused("2 GPU cards asked for, this server has 1", "--workers", 2, "--device_target", "GPU")
    refused("Ascend card 2 asked for, this server has 0 to 1", "--standalone", 2, "--device_target", "Ascend")
    refused(
        "2 Ascend cards asked for, this server has 1",
        "--workers", 2, "--device_target", "Ascend", ASCEND_RT_VISIBLE_DEVICES="1",
    )  # fmt: skip


def test_a_cpu_runs_some_processes_a_core(monkeypatch):
    monkeypatch.setattr(checks, "usable_cores", lambda: 2)
    checks.check_cards("CPU", 8)
    refused("9 processes asked for, 8 are the most on the 2 cores", "--workers", 9, "--device_target", "CPU")


def test_the_device_and_the_number_of_processes_are_known():
    refused("DEVICE_TARGET is 'TPU'", "--workers", 1, "--device_target", "TPU")
    refused("DEVICE_NUM is '0'", "--workers", 0)
    refused("one of the arguments --workers --standalone is required; see --help")
    refused("argument --standalone: not allowed with argument --workers", "--workers", 1, "--standalone", 0)


def test_msrun_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    refused("msrun is neither beside .*python3 nor on the PATH", *CPU)


def table(tmp_path, address, *devices):
    path = tmp_path / "table.json"
    rows = [{"device_id": str(device), "rank_id": str(rank)} for rank, device in enumerate(devices)]
    path.write_text(json.dumps({"server_list": [{"server_id": address, "device": rows}]}))
    return str(path)


def test_a_rank_table_must_be_there_and_fit(clean, tmp_path):
    for card in range(4):
        (clean / f"davinci{card}").touch()
    words = ("--workers", 2, "--device_target", "Ascend")
    refused("/nowhere cannot be read", *words, RANK_TABLE_FILE="/nowhere")
    (tmp_path / "broken.json").write_text("{")
    refused("broken.json is broken", *words, RANK_TABLE_FILE="broken.json")
    refused(
        "lists 1 devices for server 127.0.0.1, DEVICE_NUM is 2",
        *words, RANK_TABLE_FILE=table(tmp_path, "127.0.0.1", 0),
    )  # fmt: skip
    refused(
        "is for 192.0.2.1, none of which is this server; set NODE_RANK",
        *words, RANK_TABLE_FILE=table(tmp_path, "192.0.2.1", 0, 1),
    )  # fmt: skip
    refused(
        "lists 1 servers, NODE_RANK is 1", *words, NODE_RANK="1", RANK_TABLE_FILE=str(tmp_path / "table.json")
    )
    refused("RANK_TABLE_FILE is for Ascend", *CPU, RANK_TABLE_FILE=str(tmp_path / "table.json"))


def test_this_server_is_found_in_a_rank_table_by_its_address_or_number(tmp_path):
    path = tmp_path / "table.json"
    servers = [
        {"server_id": address, "device": [{"device_id": "3", "rank_id": str(rank)}]}
        for rank, address in enumerate(["192.0.2.1", "127.0.0.1"])
    ]
    path.write_text(json.dumps({"server_list": servers}))
    assert Plan(workers=1, rank_table=str(path)).ranks() == [1]
    assert Plan(workers=1, rank_table=str(path), node_rank=0).ranks() == [0]


def test_ranks_of_the_second_server_follow_those_of_the_first():
    assert Plan(workers=4, nodes=2, node_rank=1).ranks() == [4, 5, 6, 7]


def test_the_folder_of_logs_is_new(tmp_path):
    (tmp_path / "door.py").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "worker_0.log").touch()
    refused("LOG_DIR .*old is there already; give a new folder", *CPU, LOG_DIR="old")
    refused("LOG_DIR .*door.py/logs cannot be made", *CPU, LOG_DIR="door.py/logs")


def test_what_is_started_must_be_there():
    refused("door.py is not there", *CPU)
