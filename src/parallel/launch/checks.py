# SPDX-License-Identifier: Apache-2.0
"""What must be there before anything starts: cards, an address and a port, msrun, a rank table."""

import contextlib
import errno
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from ...common.errors import UserError
from ...model_utils.cpu import usable_cores
from ..rank_table import Server, read_rank_table

DEVICES = Path("/dev")
PROCESSES_A_CORE = 4  # on a CPU: more would only wait for each other
LOWEST_PORT, HIGHEST_PORT = 20000, 32767  # below those that Linux gives to outgoing connections
DEFAULT_PORT = 8118  # msrun's


def check_cards(target: str, count: int, *, device_id: int | None = None) -> None:
    """Refuses a device this server has not, or more processes than it has cards.

    Args:
        target: Ascend, GPU or CPU.
        count: processes on this server.
        device_id: the one card that is asked for.

    Raises:
        UserError: one line with what is there.
    """
    if target == "CPU":
        most = PROCESSES_A_CORE * max(2, usable_cores())
        if count > most:
            raise UserError(
                f"{count} processes asked for, {most} are the most on the {usable_cores()} cores here; "
                "give a smaller DEVICE_NUM"
            )
        return
    cards = ascend_cards() if target == "Ascend" else gpu_cards()
    if not cards:
        what = f"{DEVICES}/davinci*" if target == "Ascend" else "nvidia-smi -L"
        raise UserError(
            f"no {target} card on this server ({what} shows none); DEVICE_TARGET=CPU runs the same on a CPU"
        )
    if count > cards:
        raise UserError(
            f"{count} {target} cards asked for, this server has {cards}; give a smaller DEVICE_NUM"
        )
    if device_id is not None and device_id >= cards:
        raise UserError(f"{target} card {device_id} asked for, this server has 0 to {cards - 1}")


def ascend_cards() -> int:
    """How many this process may use, by their device files."""
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    there = sum(bool(re.fullmatch(r"davinci\d+", path.name)) for path in DEVICES.glob("davinci*"))
    return min(there, len(visible.split(","))) if visible else there


def gpu_cards() -> int:
    """How many this process may use, by their device files, else by nvidia-smi."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in DEVICES.glob("nvidia*"))
    if not there and shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        there = listed.stdout.count("GPU ") if listed.returncode == 0 else 0
    return min(there, len(visible.split(","))) if visible else there


def find_msrun() -> str:
    """The path of msrun, beside this Python or on the PATH. Raises UserError."""
    beside = Path(sys.executable).with_name("msrun")
    found = str(beside) if beside.is_file() else shutil.which("msrun")
    if not found:
        raise UserError(
            f"msrun is neither beside {sys.executable} nor on the PATH; it comes with MindSpore: "
            "pip install -r requirements.txt"
        )
    return found


def is_own_address(address: str) -> bool:
    """Whether a name or number is an address of this server."""
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def check_master(address: str, port: int | None, *, node_rank: int) -> None:
    """Refuses a master that is on another server than NODE_RANK 0, or whose port is taken.

    Args:
        port: None where a free one is taken at the start.

    Raises:
        UserError: one line with the address or the port.
    """
    try:
        socket.gethostbyname(address)
    except OSError as error:
        raise UserError(f"MASTER_ADDR {address} is no address or known name of a server") from error
    own = is_own_address(address)
    if own != (node_rank == 0):
        raise UserError(
            f"MASTER_ADDR {address} {'is' if own else 'is not'} an address of this server, and NODE_RANK is "
            f"{node_rank}; NODE_RANK 0 runs on the server of MASTER_ADDR, the others elsewhere"
        )
    if own and port is not None and not is_free(address, port):
        raise UserError(
            f"port {port} of {address} is busy; give another MASTER_PORT, or end what listens there "
            f"(ss -ltnp 'sport = :{port}' names it)"
        )


def is_free(address: str, port: int) -> bool:
    """Whether a process could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise UserError(f"port {port} of {address} cannot be used ({error.strerror})") from error
    return True


def answers(address: str, port: int) -> bool:
    """Whether a process listens there, on whichever server."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def free_port(address: str) -> int:
    """A port where nothing listens and that no outgoing connection is given. Raises UserError."""
    for _ in range(100):
        port = random.SystemRandom().randint(LOWEST_PORT, HIGHEST_PORT)
        with contextlib.suppress(UserError):
            if is_free(address, port):
                return port
    raise UserError(f"no free port from {LOWEST_PORT} to {HIGHEST_PORT}; give MASTER_PORT")


def own_server(path: str, *, workers: int, node_rank: int | None) -> tuple[Server, int]:
    """This server's entry of a rank table, and the number of all ranks.

    Args:
        workers: processes on this server.
        node_rank: the entry's place in the table; None: the one that has an address of this server.

    Raises:
        UserError: the table is missing or broken, or has not `workers` devices for this server.
    """
    servers = read_rank_table(path)
    if node_rank is not None:
        if node_rank >= len(servers):
            raise UserError(f"{path} lists {len(servers)} servers, NODE_RANK is {node_rank}")
        server = servers[node_rank]
    else:
        own = [server for server in servers if is_own_address(server.address)]
        if len(own) != 1:
            listed = ", ".join(server.address for server in servers)
            raise UserError(
                f"{path} is for {listed}, "
                f"{'none' if not own else 'more than one'} of which is this server; set NODE_RANK, "
                "or write the table anew with python -m src.tools.rank_table"
            )
        server = own[0]
    if len(server.devices) != workers:
        raise UserError(
            f"{path} lists {len(server.devices)} devices for server {server.address}, "
            f"DEVICE_NUM is {workers}; they must be the same"
        )
    return server, sum(len(server.devices) for server in servers)
