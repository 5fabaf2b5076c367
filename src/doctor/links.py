# SPDX-License-Identifier: Apache-2.0
"""Several cards: the launcher, the address where processes meet, the rank table, and the links of cards."""

import ctypes.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..common.errors import UserError
from ..parallel import rank_table
from ..parallel.launch import checks
from .commands import ask
from .finding import Finding, failure, ok, refused, warning
from .software import INSTALL

TOOL_FOLDERS = ("/usr/local/Ascend/driver/tools",)


def check_links(target: str, cards: int, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What `cards` processes of this server need to train together.

    Args:
        target: Ascend, GPU or CPU.
        environment: RANK_TABLE_FILE, NODE_NUM, NODE_RANK, MASTER_ADDR, MASTER_PORT, as for the scripts.
    """
    yield check_launcher(target, cards)
    servers = int(_number(environment, "NODE_NUM", 1))
    table = environment.get("RANK_TABLE_FILE")
    if table:
        yield check_rank_table(table, cards, _number(environment, "NODE_RANK", None))
    elif servers > 1:
        yield check_master(environment)
    if target == "Ascend":
        yield check_hccl(environment)
        bad = failure if servers > 1 else warning  # within one server HCCS or PCIe may do
        yield check_addresses(cards, bad)
        yield check_card_links(cards, bad)


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else default


def check_launcher(target: str, cards: int) -> Finding:
    """msrun, and so many cards."""
    try:
        checks.check_cards(target, cards)
        found = checks.find_msrun()
    except UserError as error:
        return refused("launcher", error, INSTALL)
    return ok("launcher", f"{cards} processes on {target}, started by {found}")


def check_rank_table(path: str, cards: int, node_rank: int | None) -> Finding:
    """Whether it can be read, lists this server, and as many cards."""
    try:
        server, size = checks.own_server(path, workers=cards, node_rank=node_rank)
    except UserError as error:
        return refused("rank table", error, "write it anew: python -m src.tools.rank_table --help")
    return ok("rank table", f"{path}: {len(server.devices)} cards of {server.address}, {size} in all")


def check_master(environment: Mapping[str, str]) -> Finding:
    """Whether the first server can be reached by its name, and its port is free."""
    address = environment.get("MASTER_ADDR", "")
    rank = _number(environment, "NODE_RANK", None)
    port = _number(environment, "MASTER_PORT", checks.DEFAULT_PORT)
    if not address or rank is None:
        missing = "MASTER_ADDR" if not address else "NODE_RANK"
        mend = "set MASTER_ADDR to the address of the first server, NODE_RANK to 0 there, 1 on the next ..."
        return failure("servers", f"NODE_NUM is {environment['NODE_NUM']}, but {missing} is not set", mend)
    try:
        checks.check_master(address, port, node_rank=rank)
    except UserError as error:
        return refused("servers", error, "give another MASTER_ADDR or MASTER_PORT")
    if rank and not checks.answers(address, port):
        return warning(
            "servers",
            f"nothing answers at {address}:{port} yet",
            "start NODE_RANK 0 first; if it runs, let its firewall pass this port",
        )
    return ok("servers", f"this is NODE_RANK {rank}; they meet at {address}:{port}")


def check_hccl(environment: Mapping[str, str]) -> Finding:
    """The library of collective operations, which comes with CANN."""
    home = environment.get("ASCEND_HOME_PATH") or environment.get("ASCEND_TOOLKIT_HOME") or ""
    library = Path(home) / "lib64" / "libhccl.so"
    if home and library.exists():
        return ok("HCCL", str(library))
    if found := ctypes.util.find_library("hccl"):
        return ok("HCCL", found)
    mend = "install CANN's toolkit, then source its set_env.sh"
    return failure("HCCL", f"no {library if home else 'libhccl.so'}", mend)


def check_addresses(cards: int, bad: Callable[[str, str, str], Finding]) -> Finding:
    """Whether each card has an address in its own network. `bad`: what it is if not."""
    try:
        text = Path(rank_table.HCCN).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    having = {int(card) for card in re.findall(r"^\s*address_(\d+)\s*=\s*\S+", text, re.MULTILINE)}
    missing = sorted({*range(cards)} - having)
    if missing:
        what = f"{rank_table.HCCN} has no address of card {', '.join(map(str, missing))}"
        mend = f"hccn_tool -i {missing[0]} -ip -s address ADDRESS netmask MASK as root"
        return bad("addresses", what, f"{mend}; in a container mount the file")
    return ok("addresses", f"{rank_table.HCCN} has one for each of {cards} cards")


def check_card_links(cards: int, bad: Callable[[str, str, str], Finding]) -> Finding:
    """Whether the link of each card's own network is up. `bad`: what it is if not."""
    down = []
    for card in range(cards):
        answer = ask(["hccn_tool", "-i", str(card), "-link", "-g"], also_in=TOOL_FOLDERS)
        if answer is None:
            mend = f"in a container mount {TOOL_FOLDERS[0]}/hccn_tool"
            return warning("card links", "no hccn_tool to ask for them", mend)
        if answer.error:
            return warning("card links", answer.error, "call it as root")
        if "UP" not in answer.output.upper().split():
            down.append(card)
    if down:
        mend = f"look at cable and switch; hccn_tool -i {down[0]} -link_stat -g says since when"
        return bad("card links", f"down: card {', '.join(map(str, down))}", mend)
    return ok("card links", f"up on all {cards} cards")
