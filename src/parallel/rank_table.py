# SPDX-License-Identifier: Apache-2.0
"""Rank tables: the list of cards that older Ascend clusters start from."""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError

HCCN = "/etc/hccn.conf"


@dataclass(frozen=True)
class Server:
    """One server of a table: its address, and the (device, rank) of each card in it."""

    address: str
    devices: tuple[tuple[int, int], ...]


def read_rank_table(path: str) -> list[Server]:
    """The servers of a rank table.

    Raises:
        UserError: no such file, no JSON, or ranks that are not 0 to n - 1.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        servers = [
            Server(
                str(server["server_id"]),
                tuple((int(device["device_id"]), int(device["rank_id"])) for device in server["device"]),
            )
            for server in table["server_list"]
        ]
    except OSError as error:
        raise UserError(f"rank table {path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(
            f"rank table {path} is broken ({what}); write it anew with python -m src.tools.rank_table"
        ) from error
    ranks = sorted(rank for server in servers for _, rank in server.devices)
    if not ranks or ranks != list(range(len(ranks))):
        raise UserError(f"rank table {path} is broken (its ranks are {ranks}, not 0 to n - 1)")
    return servers


def make_rank_table(
    servers: Sequence[str], devices: Sequence[int], device_ips: Sequence[Sequence[str]]
) -> dict:
    """The table as a mapping, of version 1.0.

    Args:
        servers: the servers' addresses; ranks go by this order.
        devices: the cards of each server.
        device_ips: for each server, the address of each of its cards.

    Raises:
        UserError: an address is none or is there twice, or their numbers do not fit.
    """
    if len(device_ips) != len(servers) or any(len(ips) != len(devices) for ips in device_ips):
        raise UserError(
            f"{[len(ips) for ips in device_ips]} device addresses given for {len(servers)} servers "
            f"of {len(devices)} devices"
        )
    _check_addresses("servers", servers)
    _check_addresses("device_ips", [ip for ips in device_ips for ip in ips])
    if len(set(devices)) != len(devices):
        raise UserError(f"devices: one is there twice in {list(devices)}")
    ranks = iter(range(len(servers) * len(devices)))
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": [
            {
                "server_id": server,
                "device": [
                    {"device_id": str(device), "device_ip": ip, "rank_id": str(next(ranks))}
                    for device, ip in zip(devices, ips)
                ],
                "host_nic_ip": "reserve",
            }
            for server, ips in zip(servers, device_ips)
        ],
        "status": "completed",
    }


def _check_addresses(name: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise UserError(f"{name}: {address!r} is no IP address") from error
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise UserError(f"{name}: {', '.join(twice)} is there twice")


def device_numbers(text: str) -> list[int]:
    """0-3,6 -> [0, 1, 2, 3, 6]"""
    numbers = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not found or (found[2] and int(found[2]) < int(found[1])):
            raise UserError(f"devices: {text!r} given, allowed: numbers and ranges, as 0-7 or 0,1,4-7")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give a copy of a server's "
            f"{HCCN}, or the addresses themselves, with --device_ips"
        ) from error


def _addresses_of(path: str, devices: Sequence[int]) -> list[str]:
    """The addresses of `devices` in a hccn.conf."""
    found = dict(re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)", _read(path), re.MULTILINE))
    missing = [device for device in devices if str(device) not in found]
    if missing:
        raise UserError(f"{path} has no line address_{missing[0]}=...; give the cards it has with --devices")
    return [found[str(device)] for device in devices]


def device_ips(given: str | None, servers: Sequence[str], devices: Sequence[int]) -> list[list[str]]:
    if given is None:
        if len(servers) > 1:
            raise UserError(
                f"{HCCN} tells this server's addresses only, and {len(servers)} servers are given; "
                "name a copy of the file of each with --device_ips FILE,FILE"
            )
        return [_addresses_of(HCCN, devices)]
    words = [word.strip() for word in given.split(",")]
    if "/" in words[0] or Path(words[0]).exists():
        if len(words) == len(servers) and "address_" in _read(words[0]):
            return [_addresses_of(word, devices) for word in words]
        words = [line for word in words for line in _read(word).split()]
    if len(words) != len(servers) * len(devices):
        raise UserError(
            f"device_ips: {len(words)} addresses given, {len(servers)} servers of {len(devices)} devices "
            f"need {len(servers) * len(devices)}"
        )
    return [words[i : i + len(devices)] for i in range(0, len(words), len(devices))]
