# SPDX-License-Identifier: Apache-2.0
"""Rank tables: what is written, what is read, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.parallel import rank_table
from src.tools.rank_table import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hccn(tmp_path, monkeypatch):
    """The file of addresses that a server with eight cards has."""
    path = tmp_path / "hccn.conf"
    path.write_text(
        "".join(f"address_{card}=192.168.100.{101 + card}\nnetmask_{card}=x\n" for card in range(8))
    )
    monkeypatch.setattr(rank_table, "HCCN", str(path))
    return path


def write(tmp_path, *words):
    path = tmp_path / "tables" / "rank_table.json"
    main([*map(str, words), "--output", str(path)])
    return path


def test_one_server_from_its_own_file_of_addresses(tmp_path, hccn, capsys):
    path = write(tmp_path, "--servers", "10.0.0.1")
    devices = [
        {"device_id": str(card), "device_ip": f"192.168.100.{101 + card}", "rank_id": str(card)}
        for card in range(8)
    ]
    assert json.loads(path.read_text()) == {
        "version": "1.0",
        "server_count": "1",
        "server_list": [{"server_id": "10.0.0.1", "device": devices, "host_nic_ip": "reserve"}],
        "status": "completed",
    }
    assert capsys.readouterr().out == f"{path}: 1 servers of 8 devices\n"
    assert rank_table.read_rank_table(str(path)) == [
        rank_table.Server("10.0.0.1", tuple((card, card) for card in range(8)))
    ]


def test_ranks_go_on_from_server_to_server(tmp_path, hccn):
    other = tmp_path / "other.conf"
    other.write_text("address_4=192.168.101.104\naddress_6 = 192.168.101.106\n")
    path = write(
        tmp_path, "--servers", "10.0.0.1,10.0.0.2", "--devices", "4,6", "--device_ips", f"{hccn},{other}"
    )
    servers = rank_table.read_rank_table(str(path))
    assert [server.devices for server in servers] == [((4, 0), (6, 1)), ((4, 2), (6, 3))]
    second = json.loads(path.read_text())["server_list"][1]["device"]
    assert [device["device_ip"] for device in second] == ["192.168.101.104", "192.168.101.106"]


@pytest.mark.parametrize("how", ["list", "file"])
def test_addresses_may_be_given_themselves(tmp_path, how):
    addresses = ["192.168.1.1", "192.168.1.2", "192.168.2.1", "192.168.2.2"]
    given = ",".join(addresses)
    if how == "file":
        given = tmp_path / "addresses.txt"
        given.write_text("\n".join(addresses) + "\n")
    path = write(tmp_path, "--servers", "10.0.0.1,10.0.0.2", "--devices", "0-1", "--device_ips", given)
    servers = json.loads(path.read_text())["server_list"]
    assert [device["device_ip"] for server in servers for device in server["device"]] == addresses


@pytest.mark.parametrize(
    ("servers", "devices", "device_ips", "said"),
    [
        ("10.0.0.x", "0-7", None, "servers: '10.0.0.x' is no IP address"),
        ("10.0.0.1,10.0.0.1", "0", "1.2.3.4,1.2.3.5", "servers: 10.0.0.1 is there twice"),
        ("10.0.0.1", "0-8", None, "no line address_8"),
        ("10.0.0.1", "3-1", None, "devices: '3-1' given"),
        ("10.0.0.1", "0,0", None, "is there twice"),
        ("10.0.0.1", "0-7", "1.2.3.4", "1 addresses given, 1 servers of 8 devices need 8"),
        ("10.0.0.1", "0,1", "1.2.3.4,1.2.3.4", "1.2.3.4 is there twice"),
        ("10.0.0.1", "0", "card", "'card' is no IP address"),
        ("10.0.0.1", "0-7", "/nowhere/hccn.conf", "/nowhere/hccn.conf cannot be read"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(tmp_path, hccn, servers, devices, device_ips, said):
    words = ["--servers", servers, "--devices", devices]
    words += ["--device_ips", device_ips] if device_ips else []
    with pytest.raises(UserError, match=said):
        write(tmp_path, *words)
    assert not (tmp_path / "tables").exists()


def test_several_servers_need_the_addresses_of_each(tmp_path, hccn):
    with pytest.raises(UserError, match="name a copy of the file of each"):
        write(tmp_path, "--servers", "10.0.0.1,10.0.0.2")


def test_without_cards_here_the_command_says_what_to_give(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "src.tools.rank_table", "--servers", "10.0.0.1", "--output", "x"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: /etc/hccn.conf cannot be read") and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is broken"),
        ("[]", "is broken"),
        ('{"server_list": [{"server_id": "10.0.0.1"}]}', "'device' is missing"),
        ('{"server_list": []}', "its ranks are"),
        (
            '{"server_list": [{"server_id": "a", "device": [{"device_id": "0", "rank_id": "1"}]}]}',
            r"its ranks are \[1\]",
        ),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, said):
    path = tmp_path / "table.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{path}.*{said}"):
        rank_table.read_rank_table(str(path))
