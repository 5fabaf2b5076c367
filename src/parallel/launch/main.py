# SPDX-License-Identifier: Apache-2.0
"""Start train.py or another program in several processes, one for each card, and watch them.

The scripts in scripts/ call it:

python -m src.tools.launch --workers 8 -- train.py --config_path FILE --data_path DIR
python -m src.tools.launch --standalone 0 -- eval.py --checkpoint_path FILE

The console shows the output of the first worker; LOG_DIR/worker_R.log has that of each one. The exit code is
the workers' own: 0; 2 for a mistake in the call; 143 after a signal to stop; 124 for a hang; 128 and the
signal's number for a killed worker.

SIGTERM, SIGINT, SIGHUP and SIGUSR1 are passed on to the workers, which save and stop. A second SIGTERM or
SIGINT kills, and so does STOP_TIMEOUT without a batch. Whatever happens, no process is left.

After a failure everything is started again, up to --max_restarts times. A training goes on from the newest
checkpoint of its run's folder, which the first worker has announced (common/heartbeat.py). The logs of the
n-th restart are in LOG_DIR/restart_n.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from ...common import heartbeat
from ...common.cli import parser
from ...common.errors import UserError
from . import checks
from .start import Plan, adopt_orphans
from .watch import STOPPED, USER_ERROR, Attempt, Failure, Limits, let_the_others_end


def _flags() -> argparse.ArgumentParser:
    flags = parser(__doc__)
    processes = flags.add_mutually_exclusive_group(required=True)
    processes.add_argument(
        "--workers", type=partial(checks.whole, "DEVICE_NUM"), help="processes on this server"
    )
    processes.add_argument(
        "--standalone",
        metavar="DEVICE_ID",
        type=partial(checks.whole, "DEVICE_ID"),
        help="one process, on this card",
    )

    def add(name: str, variable: str, default: str | None, meaning: str) -> None:
        """A flag whose default is the variable of the environment where it is set."""
        flags.add_argument(
            f"--{name}", metavar=variable, default=os.environ.get(variable) or default,
            type=partial(checks.whole, variable) if variable in checks.LEAST else str,
            help=f"{meaning} ({default})" if default else meaning,
        )  # fmt: skip

    add("nodes", "NODE_NUM", "1", "number of servers")
    add("node_rank", "NODE_RANK", None, "which of the servers this is; 0 is the one at MASTER_ADDR")
    add("master_addr", "MASTER_ADDR", checks.DEFAULT_ADDRESS, "address of the server of NODE_RANK 0")
    add("master_port", "MASTER_PORT", None, "port of MASTER_ADDR (a free one; several servers: 8118)")
    add("rank_table", "RANK_TABLE_FILE", "", "start the workers from this rank table, without msrun")
    add("device_target", "DEVICE_TARGET", "CPU", "Ascend, GPU or CPU")
    add("log_dir", "LOG_DIR", "", "new folder for the logs (logs/DOOR-date-time)")
    add("max_restarts", "MAX_RESTARTS", "0", "how often to start again after a failure")
    add(
        "hang_timeout",
        "HANG_TIMEOUT",
        "600",
        "seconds without a sign of life of a worker, after which all end; 0: no limit",
    )
    add(
        "progress_timeout",
        "PROGRESS_TIMEOUT",
        "3600",
        "seconds without a batch of any worker, after which all end; 0: no limit",
    )
    add("cluster_timeout", "CLUSTER_TIMEOUT", "600", "seconds for all workers to meet")
    add(
        "stop_timeout", "STOP_TIMEOUT", "300", "after a signal, seconds without a batch before all are killed"
    )
    add("bind_cores", "BIND_CORES", "1", "1: each worker uses its share of the cores; 0: all of them")
    flags.add_argument(
        "door",
        nargs="+",
        metavar="-- PROGRAM WORD",
        help="the program to start, such as train.py, and its arguments",
    )
    return flags


@contextlib.contextmanager
def _on_this_machine(target: str) -> Iterator[None]:
    """Within it, a UserError also names the command that examines this machine."""
    try:
        yield
    except UserError as error:
        doctor = f"python -m src.tools.doctor --device_target {target}"
        raise UserError(f"{error}; {doctor} says what this machine has") from error


def _plan(own: argparse.Namespace) -> Plan:
    """The plan, checked. Raises UserError."""
    if own.device_target not in ("Ascend", "GPU", "CPU"):
        raise UserError(f"DEVICE_TARGET is {own.device_target!r}; Ascend, GPU or CPU is needed")
    own.workers = own.workers or 1
    with _on_this_machine(own.device_target):
        checks.check_cards(own.device_target, own.workers, device_id=own.standalone)
    if own.standalone is not None:
        return Plan(workers=1, device_id=own.standalone)
    with _on_this_machine(own.device_target):
        if not own.rank_table:
            checks.find_msrun()
        port = checks.check_servers(
            own.device_target, own.workers, nodes=own.nodes, node_rank=own.node_rank,
            address=own.master_addr, port=own.master_port, rank_table=own.rank_table,
        )  # fmt: skip
    common = {"workers": own.workers, "bind_cores": bool(own.bind_cores), "node_rank": own.node_rank}
    if own.rank_table:
        return Plan(**common, rank_table=own.rank_table)
    return Plan(
        **common, nodes=own.nodes, master_address=own.master_addr, master_port=port,
        cluster_time_out=own.cluster_timeout,
    )  # fmt: skip


def _log_folder(given: str, door: str) -> Path:
    """A new, empty folder. Raises UserError."""
    folder = Path(given or Path("logs", f"{Path(door).stem}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"))
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"LOG_DIR {folder} is there already; give a new folder, one for each call")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"LOG_DIR {folder} cannot be made ({error.strerror})") from error
    return folder


class _StopRequests:
    """Counts the signals that ask to stop: 0, 1, or 2 for at once.

    Only SIGTERM and SIGINT, given twice, mean at once: SIGUSR1 is Slurm's warning some time before its
    SIGTERM, and SIGHUP comes as a terminal closes.

    Attributes:
        passed_on: what the workers get: the signal itself, for SIGINT SIGTERM. A worker that Slurm sends
            SIGUSR1 and then SIGTERM, too, still has only one SIGTERM.
    """

    def __init__(self) -> None:
        self._asked, self._urgent = False, 0
        self.passed_on = signal.SIGTERM
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._asked and number in (signal.SIGHUP, signal.SIGUSR1):
            self.passed_on = signal.Signals(number)
        self._asked = True
        self._urgent += number in (signal.SIGTERM, signal.SIGINT)

    def __call__(self) -> int:
        return min(2, max(self._asked, self._urgent))


def main(arguments: Sequence[str]) -> int:
    own = _flags().parse_args(arguments)
    plan = _plan(own)
    if not Path(own.door[0]).is_file():
        raise UserError(f"{own.door[0]} is not there; name the program to start, such as train.py")
    folder = _log_folder(own.log_dir, own.door[0])
    limits = Limits(own.hang_timeout, own.progress_timeout, own.stop_timeout)
    adopt_orphans()
    stopping = _StopRequests()
    command, logs, run = own.door, folder, None
    print(f"logs: {folder}", file=sys.stderr, flush=True)
    for restart in range(1, own.max_restarts + 2):
        try:
            Attempt(plan, command, logs, limits, stopping).run()
            break
        except Failure as failure:
            what = "" if failure.exit_code == STOPPED else "error: "
            print(f"{what}{failure}", file=sys.stderr, flush=True)
            if failure.exit_code in (USER_ERROR, STOPPED) or stopping() or restart > own.max_restarts:
                return failure.exit_code
        let_the_others_end(plan, stopping)
        if stopping():
            return STOPPED
        run = _announced(plan, logs) or run
        # The launchers of all servers find the same: the workers announce a folder when all of them know it.
        how = "from the beginning"
        if run:
            command, how = [own.door[0], *run.words], f"from {run.folder}"
        logs = folder / f"restart_{restart}"
        print(f"restart {restart} of {own.max_restarts}, {how}; logs: {logs}", file=sys.stderr, flush=True)
    run = _announced(plan, logs) or run
    if run:
        print(f"run: {run.folder.absolute()}")
    return 0


def _announced(plan: Plan, logs: Path) -> heartbeat.Run | None:
    return heartbeat.announced(logs / "heartbeat", plan.ranks()[0])
