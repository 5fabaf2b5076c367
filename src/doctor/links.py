# SPDX-License-Identifier: Apache-2.0
"""Several cards: the launcher, the address where processes meet, the rank table, and the links of cards."""

import ctypes.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
    yield check_launcher(target, cards, environment)
    yield from check_servers(target, cards, environment)
    there = checks.visible_cards(target)[:cards] if target == "Ascend" else []
    if target == "Ascend":
        yield check_hccl(environment)
    if there:
        several = environment.get("NODE_NUM", "1") not in ("", "1")
        bad = failure if several else warning  # within one server HCCS or PCIe may do
        yield check_addresses(there, bad)
        yield check_card_links(there, bad)


def check_launcher(target: str, cards: int, environment: Mapping[str, str]) -> Finding:
    """So many cards, and msrun, unless a rank table takes its place."""
    try:
        checks.check_cards(target, cards)
        found = environment.get("RANK_TABLE_FILE") or checks.find_msrun()
    except UserError as error:
        found = refused("launcher", error, INSTALL)
        return replace(found, mend=found.mend.replace("DEVICE_NUM", "--cards (DEVICE_NUM of the scripts)"))
    return ok("launcher", f"{cards} processes on {target}, started by {found}")


def check_servers(target: str, cards: int, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the launcher takes the rank table, or the servers and the place where they meet.

    Nothing is said of a single server that it takes.
    """

    def number(name: str, default: int | None = None) -> int | None:
        text = environment.get(name)
        return checks.whole(name, text) if text else default

    table, address = environment.get("RANK_TABLE_FILE", ""), environment.get("MASTER_ADDR")
    address = address or checks.DEFAULT_ADDRESS
    name = "rank table" if table else "servers"
    try:
        nodes, rank = number("NODE_NUM", 1), number("NODE_RANK")
        port = checks.check_servers(
            target, cards, nodes=nodes, node_rank=rank, address=address, port=number("MASTER_PORT"),
            rank_table=table,
        )  # fmt: skip
    except UserError as error:
        mend = "write it anew: python -m src.tools.rank_table --help" if table else "give another MASTER_ADDR"
        yield refused(name, error, mend)
        return
    if table:
        server, size = checks.own_server(table, workers=cards, node_rank=rank)
        yield ok(name, f"{table}: {len(server.devices)} cards of {server.address}, {size} in all")
    elif rank and not checks.answers(address, port):
        what, mend = f"nothing answers at {address}:{port} yet", "start NODE_RANK 0 first"
        yield warning(name, what, f"{mend}; if it runs, let its firewall pass this port")
    elif nodes > 1:
        yield ok(name, f"this is NODE_RANK {rank}; they meet at {address}:{port}")


def check_hccl(environment: Mapping[str, str]) -> Finding:
    """The library of collective operations, which comes with CANN."""
    home = environment.get("ASCEND_HOME_PATH") or environment.get("ASCEND_TOOLKIT_HOME") or ""
    library = Path(home) / "lib64" / "libhccl.so"
    if home and os.path.exists(library):
        return ok("HCCL", str(library))
    if found := ctypes.util.find_library("hccl"):
        return ok("HCCL", found)
    mend = "install CANN's toolkit, then source its set_env.sh"
    return failure("HCCL", f"no {library if home else 'libhccl.so'}", mend)


def check_addresses(cards: Sequence[str], bad: Callable[[str, str, str], Finding]) -> Finding:
    """Whether each card has an address in its own network. `bad`: what it is if not."""
    try:
        text = Path(rank_table.HCCN).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    having = re.findall(r"^\s*address_(\d+)\s*=\s*\S+", text, re.MULTILINE)
    missing = [card for card in cards if card not in having]
    if missing:
        what = f"{rank_table.HCCN} has no address of card {', '.join(missing)}"
        mend = f"hccn_tool -i {missing[0]} -ip -s address ADDRESS netmask MASK as root"
        return bad("addresses", what, f"{mend}; in a container mount the file")
    return ok("addresses", f"{rank_table.HCCN} has one for each of {len(cards)} cards")


def check_card_links(cards: Sequence[str], bad: Callable[[str, str, str], Finding]) -> Finding:
    """Whether the link of each card's own network is up. `bad`: what it is if not."""
    down = []
    for card in cards:
        answer = ask(["hccn_tool", "-i", card, "-link", "-g"], also_in=TOOL_FOLDERS)
        if answer is None:
            mend = f"in a container mount {TOOL_FOLDERS[0]}/hccn_tool"
            return warning("card links", "no hccn_tool to ask for them", mend)
        if answer.error:
            return warning("card links", answer.error, "call it as root")
        if "UP" not in answer.output.upper().split():
            down.append(card)
    if down:
        mend = f"look at cable and switch; hccn_tool -i {down[0]} -link_stat -g says since when"
        return bad("card links", f"down: card {', '.join(down)}", mend)
    return ok("card links", f"up on all {len(cards)} cards")
