# SPDX-License-Identifier: Apache-2.0
"""How the workers of one attempt are started: by msrun, or one by one with a rank table or alone."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ...model_utils.cpu import shares_of_cores
from . import checks, worker

_PR_SET_CHILD_SUBREAPER = 36
_WORKER = Path(worker.__file__)
# What another launcher may have left in the environment.
_OTHERS = (
    "RANK_TABLE_FILE", "RANK_SIZE", "RANK_ID", "DEVICE_ID", "SERVER_ID", "MS_ROLE", "MS_WORKER_NUM",
    "MS_NODE_ID", "MS_SCHED_HOST", "MS_SCHED_PORT",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is started on this server.

    Attributes:
        workers: processes here.
        nodes, node_rank: the servers, and which of them this is (None: by its address in the rank table).
        master_address, master_port: where the processes of all servers meet; port None: a free one.
        rank_table: path of a rank table, which takes msrun's place; "" for msrun.
        device_id: the card of one process that trains alone; None: several.
        cluster_time_out: seconds for all to meet.
        bind_cores: each worker keeps to its share of the cores.
    """

    workers: int
    nodes: int = 1
    node_rank: int | None = None
    master_address: str = "127.0.0.1"
    master_port: int | None = None
    rank_table: str = ""
    device_id: int | None = None
    cluster_time_out: int = 600
    bind_cores: bool = True

    def ranks(self) -> list[int]:
        """The ranks of the workers here."""
        if self.device_id is not None:
            return [0]
        if self.rank_table:
            return [rank for _, rank in self._server()[0].devices]
        first = (self.node_rank or 0) * self.workers
        return list(range(first, first + self.workers))

    def _server(self) -> tuple[checks.Server, int]:
        return checks.own_server(self.rank_table, workers=self.workers, node_rank=self.node_rank)

    def start(self, command: Sequence[str], folder: Path) -> list[subprocess.Popen]:
        """Starts the workers; each writes FOLDER/worker_R.log. Raises UserError as the checks do."""
        command = [str(_WORKER), sys.executable, *command]
        if self.device_id is not None:
            places = [{"RANK_ID": "0", "DEVICE_ID": str(self.device_id)}]
        elif self.rank_table:
            server, size = self._server()
            table = {
                "RANK_TABLE_FILE": os.path.abspath(self.rank_table),
                "RANK_SIZE": str(size),
                "SERVER_ID": server.address,
            }
            places = [
                {**table, "RANK_ID": str(rank), "DEVICE_ID": str(device)} for device, rank in server.devices
            ]
        else:
            return [self._start_msrun(command, folder)]
        return [
            _start([sys.executable, *command], folder / f"worker_{place['RANK_ID']}.log",
                   self._environment(folder) | place)
            for place in places
        ]  # fmt: skip

    def _start_msrun(self, command: Sequence[str], folder: Path) -> subprocess.Popen:
        port = self.master_port or checks.free_port(self.master_address)
        msrun = [
            checks.find_msrun(),
            f"--worker_num={self.workers * self.nodes}",
            f"--local_worker_num={self.workers}",
            f"--node_rank={self.node_rank or 0}",
            f"--master_addr={self.master_address}",
            f"--master_port={port}",
            f"--log_dir={folder}",
            "--join=True",
            f"--cluster_time_out={self.cluster_time_out}",
            f"--tail_worker_log={self.workers * self.nodes}",  # of none: the launcher shows them
            "python3",
        ]
        environment = self._environment(folder)
        # msrun calls "python3" by its name, so this one must be the first on the PATH.
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
        return _start([*msrun, *command], folder / "msrun.log", environment)

    def _environment(self, folder: Path) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in _OTHERS} | {
            "QUARTET_LAUNCHER": str(os.getpid()),
            "QUARTET_STATE": str(folder / "state"),
            "QUARTET_HEARTBEAT": str(folder / "heartbeat"),
            "QUARTET_CORES": json.dumps(self._cores()),
        }

    def _cores(self) -> dict[str, list[int]]:
        """Each rank's share of the cores; none if there are too few."""
        shares = shares_of_cores(self.workers) if self.bind_cores else []
        return {f"rank_{rank}": share for rank, share in zip(self.ranks(), shares)}


def _start(command: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, preexec_fn=worker.die_with_launcher,
        )  # fmt: skip


def adopt_orphans() -> None:
    """Processes whose parent ended become this one's children, so that `kill_all_children` finds them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_all_children() -> list[int]:
    """Ends every process that this one started, and theirs; returns those that did not end within 30 s.

    Needs `adopt_orphans`, so that a process whose parent ended is still found.
    """
    for _ in range(10):
        children = psutil.Process().children(recursive=True)
        if not children:
            return []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        psutil.wait_procs(children, timeout=3)
    return [child.pid for child in psutil.Process().children(recursive=True)]
