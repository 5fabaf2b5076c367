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
DEFAULT_ADDRESS, DEFAULT_PORT = "127.0.0.1", 8118  # msrun's
VISIBLE = {"Ascend": "ASCEND_RT_VISIBLE_DEVICES", "GPU": "CUDA_VISIBLE_DEVICES"}
# The variables that are whole numbers, and the least of each.
LEAST = {
    "DEVICE_NUM": 1, "DEVICE_ID": 0, "NODE_NUM": 1, "NODE_RANK": 0, "MASTER_PORT": 1024, "MAX_RESTARTS": 0,
    "HANG_TIMEOUT": 0, "PROGRESS_TIMEOUT": 0, "CLUSTER_TIMEOUT": 1, "STOP_TIMEOUT": 1, "BIND_CORES": 0,
}  # fmt: skip
MOST = {"MASTER_PORT": 65535}


def whole(name: str, text: str) -> int:
    """The whole number that a variable of LEAST is set to. Raises UserError."""
    least, most = LEAST[name], MOST.get(name)
    if not text.isdecimal() or int(text) < least or (most and int(text) > most):
        allowed = f"from {least} to {most}" if most else f"of at least {least}"
        raise UserError(f"{name} is {text!r}; a whole number {allowed} is needed")
    return int(text)


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
    cards, variable = len(visible_cards(target)), VISIBLE[target]
    if not cards:
        what = f"{DEVICES}/davinci*" if target == "Ascend" else "nvidia-smi -L"
        left = f" that {variable}={os.environ[variable]!r} leaves" if variable in os.environ else ""
        raise UserError(
            f"no {target} card on this server ({what} shows none{left}); "
            "DEVICE_TARGET=CPU runs the same on a CPU"
        )
    if count > cards:
        raise UserError(
            f"{count} {target} cards asked for, this server has {cards}; give a smaller DEVICE_NUM"
        )
    if device_id is not None and device_id >= cards:
        raise UserError(f"{target} card {device_id} asked for, this server has 0 to {cards - 1}")


def visible_cards(target: str) -> list[str]:
    """The cards that this process may use: the numbers of their device files, or of nvidia-smi.

    The variable of VISIBLE holds places among those that are there, up to the first that is none of them. A
    GPU's name stands for itself.
    """
    name = {"Ascend": "davinci", "GPU": "nvidia"}[target]
    files = (re.fullmatch(rf"{name}(\d+)", path.name) for path in DEVICES.glob(f"{name}*"))
    there = sorted((found[1] for found in files if found), key=int)
    if target == "GPU" and not there and shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        there = [str(card) for card in range(listed.stdout.count("GPU ") if listed.returncode == 0 else 0)]
    given = os.environ.get(VISIBLE[target])
    if given is None or (target == "Ascend" and not given):
        return there
    chosen = []
    for word in map(str.strip, given.split(",")):
        if word.isdecimal() and int(word) < len(there):
            chosen.append(there[int(word)])
        elif there and word.startswith(("GPU-", "MIG-")):
            chosen.append(word)
        else:
            break
    return chosen


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


def check_servers(
    target: str,
    workers: int,
    *,
    nodes: int,
    node_rank: int | None,
    address: str,
    port: int | None,
    rank_table: str,
) -> int | None:
    """Refuses servers that cannot meet, and a rank table that does not fit.

    Args:
        target: Ascend, GPU or CPU.
        workers: processes on this server.
        nodes, node_rank, address, port, rank_table: as NODE_NUM, NODE_RANK, MASTER_ADDR, MASTER_PORT and
            RANK_TABLE_FILE say.

    Returns:
        The port where the servers meet; None: a free one.

    Raises:
        UserError: one line with the variable or the table.
    """
    if rank_table:
        if target != "Ascend":
            raise UserError(f"RANK_TABLE_FILE is for Ascend, DEVICE_TARGET is {target}; unset one")
        own_server(rank_table, workers=workers, node_rank=node_rank)
        return port
    if nodes > 1:
        port = port or DEFAULT_PORT
        if node_rank is None or node_rank >= nodes:
            raise UserError(f"NODE_NUM is {nodes}; NODE_RANK must be 0 to {nodes - 1}")
        if address in ("127.0.0.1", "localhost"):
            raise UserError(f"NODE_NUM is {nodes}; MASTER_ADDR must be the address of NODE_RANK 0's server")
    elif node_rank:
        raise UserError(f"NODE_RANK is {node_rank} of 1 server; set NODE_NUM")
    check_master(address, port, node_rank=node_rank or 0)
    return port


def check_master(address: str, port: int | None, *, node_rank: int) -> None:
    """Refuses a master that is on another server than NODE_RANK 0, or whose port is taken.

    Args:
        port: None where a free one is taken at the start.

    Raises:
        UserError: one line with the address or the port.
    """
    try:
        socket.gethostbyname(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: two dots, or a word of 64 letters
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
