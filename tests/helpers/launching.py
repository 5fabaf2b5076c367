# SPDX-License-Identifier: Apache-2.0
"""Starting the launcher with workers that are small scripts: no card, no MindSpore, and mostly no msrun."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
BOUND = 60  # seconds in which everything must happen that takes one or two on an idle machine

# The launcher, but cards are looked for in the folder that is its first word.
LAUNCHER = """
import sys
from pathlib import Path
from src.common.cli import run
from src.parallel.launch import checks
from src.parallel.launch.main import main
checks.DEVICES = Path(sys.argv.pop(1))
run(main)
"""

# What every worker can use; `rank` is its own.
PRELUDE = '''
import os, signal, subprocess, sys, time
from src.common import heartbeat
rank = int(os.environ["RANK_ID"])
print("this is", rank, flush=True)
def meet(name=""):
    """Returns when both workers are here."""
    open(f"here_{name}_{rank}", "w").close()
    while not os.path.exists(f"here_{name}_{1 - rank}"):
        time.sleep(0.02)
def fall_asleep():
    while True:
        time.sleep(0.05)
'''


class Launch:
    """One call of the launcher in a process of its own.

    Args:
        folder: receives the script, the rank table and the logs.
        script: the worker's source, after PRELUDE.
        words: the launcher's own words; by default two workers of a rank table for this machine.
    """

    def __init__(self, folder, script, *words, door="work.py", keys=(), environment=(), before=()):
        folder.mkdir(exist_ok=True)
        for card in (0, 1):
            (folder / f"davinci{card}").touch()
        self.script = folder / door
        self.script.write_text(PRELUDE + script)
        self.table = folder / "table.json"
        devices = [{"device_id": str(card), "rank_id": str(card)} for card in (0, 1)]
        self.table.write_text(json.dumps({"server_list": [{"server_id": "127.0.0.1", "device": devices}]}))
        self.logs = folder / f"logs{len(list(folder.glob('logs*')))}"
        if not words:
            words = ("--workers", 2, "--device_target", "Ascend", "--rank_table", self.table)
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NODE_", "MASTER_", "RANK_", "LOG_DIR", "DEVICE_"))
        }
        command = [
            sys.executable,
            "-c",
            LAUNCHER,
            folder,
            *words,
            "--log_dir",
            self.logs,
            "--",
            self.script,
            *keys,
        ]
        self.process = subprocess.Popen(
            [*before, *map(str, command)], cwd=folder, text=True,
            env=clean | {"PYTHONPATH": str(ROOT)} | dict(environment),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self):
        """Waits; returns the exit code, what was printed and what was said on standard error."""
        try:
            output, errors = self.process.communicate(timeout=BOUND)
        finally:
            self.process.kill()
        return self.process.returncode, output, errors

    def pid(self, rank):
        """The process of a rank, once it is there."""
        return self.pids(rank)[0]

    def pids(self, rank):
        """The process of a rank, and worker.py that started it."""
        return tuple(map(int, self.wait_for(f"state/rank_{rank}", " - -").split()[:2]))

    def wait_for(self, name, text=""):
        """The content of a file among the logs, once it is there and holds `text`."""
        path = self.logs / name
        until = time.monotonic() + BOUND
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                content = path.read_text()
                if text in content:
                    return content
            time.sleep(0.05)
        raise AssertionError(f"{path} without {text!r} after {BOUND} s; {self.process.poll()}")

    def left(self):
        """The processes that are left, by their script."""
        until = time.monotonic() + BOUND
        while time.monotonic() < until:
            there = [
                p.pid
                for p in psutil.process_iter(["cmdline"])
                if str(self.script) in (p.info["cmdline"] or [])
            ]
            if not there:
                return []
            time.sleep(0.05)
        return there
