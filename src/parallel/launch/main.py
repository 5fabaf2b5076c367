"""Start a door in several processes, one a card, and watch them. The scripts of scripts/ call it.

python -m src.tools.launch --workers 8 -- train.py --config_path FILE --data_path DIR
python -m src.tools.launch --standalone 0 -- eval.py --checkpoint_path FILE

The console shows the first worker's output; every worker's own is in LOG_DIR/worker_R.log. The exit code is
the workers' own: 0, 2 for an error of the user, 143 after SIGTERM (saved and stopped), 124 for a hang, 128
and the signal's number for a killed worker. SIGTERM, SIGINT and SIGHUP are passed on to the workers, which
save and stop; the second one kills. Whatever happens, no process is left.

After a failure, --max_restarts times, everything is started again; train.py goes on with --resume from its
newest checkpoint. The logs of the n-th restart are in LOG_DIR/restart_n.
"""

import os
import signal
import sys
import time
from pathlib import Path

from ...common.cli import parser
from ...common.errors import UserError
from ...model_utils.config import read_yaml
from ...model_utils.run_keys import RunKeys
from . import checks
from .start import Plan, adopt_orphans
from .watch import STOPPED, USER_ERROR, Attempt, Failure, Limits, let_the_others_end

# Flag, variable of the environment, default, least, meaning.
_NUMBERS = (
    ("nodes", "NODE_NUM", 1, 1, "servers"),
    ("node_rank", "NODE_RANK", None, 0, "which of the servers this is, from 0; 0 runs on MASTER_ADDR"),
    ("master_port", "MASTER_PORT", None, 1024, "port of MASTER_ADDR (a free one; several servers: 8118)"),
    ("max_restarts", "MAX_RESTARTS", 0, 0, "starts after a failure"),
    ("hang_timeout", "HANG_TIMEOUT", 600, 0, "seconds without a sign of life of a worker; 0: for ever"),
    ("progress_timeout", "PROGRESS_TIMEOUT", 3600, 0, "seconds without a batch on any worker; 0: for ever"),
    ("cluster_timeout", "CLUSTER_TIMEOUT", 600, 1, "seconds for all workers to meet"),
    ("stop_timeout", "STOP_TIMEOUT", 120, 1, "seconds for the workers to save and stop"),
    ("bind_cores", "BIND_CORES", 1, 0, "1: each worker keeps to its share of the cores; 0: no"),
)
_TEXTS = (
    ("log_dir", "LOG_DIR", "", "new folder for the logs (logs/DOOR-date-time)"),
    ("device_target", "DEVICE_TARGET", "CPU", "Ascend, GPU or CPU"),
    ("master_addr", "MASTER_ADDR", "127.0.0.1", "address of the server of NODE_RANK 0"),
    ("rank_table", "RANK_TABLE_FILE", "", "start the workers from this rank table, without msrun"),
)


def _flags():
    flags = parser(__doc__)
    flags.add_argument("--workers", help="processes on this server")
    flags.add_argument("--standalone", metavar="DEVICE_ID", help="one process alone, on this card")
    for name, variable, default, _, meaning in _NUMBERS:
        flags.add_argument(f"--{name}", help=f"{meaning} ({variable}, {default})")
    for name, variable, default, meaning in _TEXTS:
        flags.add_argument(f"--{name}", help=f"{meaning} ({variable}, {default or 'none'})")
    flags.add_argument("door", nargs="+", metavar="-- DOOR WORD", help="what to start, and its words")
    return flags


def _number(name, text, least):
    if not str(text).isdecimal() or int(text) < least:
        raise UserError(f"{name} is {text!r}; a whole number of at least {least} is needed")
    return int(text)


def _settle(own):
    """Fills each flag in: from the command line, else from its variable, else the default."""
    for name, variable, default, least, _ in _NUMBERS:
        text = getattr(own, name) or os.environ.get(variable)
        setattr(own, name, _number(variable, text, least) if text else default)
    for name, variable, default, _ in _TEXTS:
        setattr(own, name, getattr(own, name) or os.environ.get(variable) or default)
    if (own.workers is None) == (own.standalone is None):
        raise UserError("either --workers or --standalone is needed; see --help")
    if own.standalone is not None:
        own.standalone = _number("DEVICE_ID", own.standalone, 0)
    own.workers = 1 if own.workers is None else _number("DEVICE_NUM", own.workers, 1)
    if own.device_target not in ("Ascend", "GPU", "CPU"):
        raise UserError(f"DEVICE_TARGET is {own.device_target!r}; Ascend, GPU or CPU is needed")


def _plan(own):
    """The plan, checked. Raises UserError."""
    checks.check_cards(own.device_target, own.workers, device_id=own.standalone)
    if own.standalone is not None:
        return Plan(workers=1, device_id=own.standalone)
    common = {"workers": own.workers, "bind_cores": bool(own.bind_cores)}
    if own.rank_table:
        if own.device_target != "Ascend":
            raise UserError(f"RANK_TABLE_FILE is for Ascend, DEVICE_TARGET is {own.device_target}; unset one")
        plan = Plan(**common, node_rank=own.node_rank, rank_table=own.rank_table)
        plan.ranks()
        return plan
    checks.find_msrun()
    port = own.master_port
    if own.nodes > 1:
        port = port or checks.DEFAULT_PORT
        if own.node_rank is None or own.node_rank >= own.nodes:
            raise UserError(f"NODE_NUM is {own.nodes}; NODE_RANK must be 0 to {own.nodes - 1}")
        if own.master_addr in ("127.0.0.1", "localhost"):
            raise UserError(
                f"NODE_NUM is {own.nodes}; MASTER_ADDR must be the address of NODE_RANK 0's server"
            )
    elif own.node_rank:
        raise UserError(f"NODE_RANK is {own.node_rank} of 1 server; set NODE_NUM")
    checks.check_master(own.master_addr, port, node_rank=own.node_rank or 0)
    return Plan(
        **common, nodes=own.nodes, node_rank=own.node_rank, master_address=own.master_addr, master_port=port,
        cluster_time_out=own.cluster_timeout,
    )  # fmt: skip


class Words:
    """A door's words, of which a training's run folder is known before it starts.

    Attributes:
        words: the door and its words; train.py has a --run_name among them.
        run_dir: the run's folder; None for other doors.

    Raises:
        UserError: the door or its config file cannot be read.
    """

    def __init__(self, words):
        self.words, self.run_dir, self.resumed, self.named = list(words), None, None, False
        if not Path(words[0]).is_file():
            raise UserError(f"{words[0]} is not there; a door such as train.py is to be started")
        if Path(words[0]).name != "train.py" or {"-h", "--help"} & set(words):
            return
        self.resumed = self._value("resume")
        if self.resumed:
            self.run_dir = Path(self.resumed)
            return
        config_path = self._value("config_path")
        config = read_yaml(config_path) if config_path else {}
        name = self._value("run_name") or config.get("run_name")
        self.named = bool(name)
        if not name:
            recipe = Path(config_path).stem if config_path else "run"
            name = f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
            self.words += ["--run_name", name]
        default = RunKeys.model_fields["output_path"].default
        self.run_dir = Path(self._value("output_path") or config.get("output_path") or default, str(name))

    def _value(self, key):
        """What follows --key, the last time."""
        found = None
        for word, following in zip(self.words, [*self.words[1:], ""]):
            if word == f"--{key}":
                found = following
            elif word.startswith(f"--{key}="):
                found = word.partition("=")[2]
        return found

    def again(self):
        """The words of a restart."""
        if self.run_dir is None or self.resumed or not (self.run_dir / "config.yaml").exists():
            return self.words
        return [self.words[0], "--resume", str(self.run_dir)]


def _log_folder(given, door):
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
    """Counts the signals that ask to stop."""

    def __init__(self):
        self.count = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)

    def _note(self, number, frame):
        self.count += 1

    def __call__(self):
        return self.count


def main(arguments):
    own = _flags().parse_args(arguments)
    _settle(own)
    plan = _plan(own)
    words = Words(own.door)
    if plan.nodes > 1 and own.max_restarts and words.run_dir and not (words.resumed or words.named):
        raise UserError("MAX_RESTARTS on several servers needs one --run_name, the same on each")
    folder = _log_folder(own.log_dir, own.door[0])
    limits = Limits(own.hang_timeout, own.progress_timeout, own.stop_timeout)
    adopt_orphans()
    stopping = _StopRequests()
    command, logs = words.words, folder
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
        command, logs = words.again(), folder / f"restart_{restart}"
        how = "from the beginning" if command is words.words else f"from {words.run_dir}"
        print(f"restart {restart} of {own.max_restarts}, {how}; logs: {logs}", file=sys.stderr, flush=True)
    if words.run_dir:
        print(f"run: {words.run_dir.absolute()}")
    return 0
