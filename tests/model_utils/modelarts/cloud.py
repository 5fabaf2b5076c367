# SPDX-License-Identifier: Apache-2.0
"""A bucket in a local folder, and doors that use it in processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
STAND_IN = Path(__file__).parent / "stand_in"
DATA = ["a.bin", "b.bin", "deep/c.bin"]


def tree(folder):
    """All files under a folder, as paths from there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def wait_until(condition, *, seconds=60):
    """Waits for an event; the bound only ends a broken test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Cloud:
    """obs://bucket with a data set of three files, and a server with its own temporary folder."""

    def __init__(self, folder: Path):
        self.obs, self.server = folder / "obs", folder / "server"
        self.bucket = self.obs / "bucket"
        for path in (self.bucket / "data" / "deep", self.server / "tmp"):
            path.mkdir(parents=True)
        for name in DATA:
            (self.bucket / "data" / name).write_bytes(name.encode() * 1000)
        self.data, self.output = self.server / "data", self.server / "out"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("JOB_ID", "DEVICE_ID", "RANK_ID")},
            "OBS": str(self.obs),
            "TMPDIR": str(self.server / "tmp"),
            "PYTHONPATH": f"{STAND_IN}{os.pathsep}{ROOT}",
        }

    def begin(self, *words, module="tests.model_utils.modelarts.cloud_worker", environment=(), **keys):
        """Starts a door with the cloud enabled and places on this server; None leaves a key out."""
        keys = {"enable_modelarts": "true", "data_path": self.data, "output_path": self.output, **keys}
        texts = [text for k, v in keys.items() if v is not None for text in (f"--{k}", str(v))]
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, words), *texts],
            cwd=ROOT,
            env={**self.environment, **dict(environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, **keys):
        """`begin` and its end: the exit code, what the door said of itself, and standard error."""
        return self.end(self.begin(*words, **keys))

    @staticmethod
    def end(process):
        out, err = process.communicate(timeout=120)
        return process.returncode, json.loads(out) if out else None, err

    def calls(self):
        """The copies that were begun, "SOURCE -> TARGET", without the process."""
        path = self.obs / "calls"
        return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []

    def steer(self, name, text=""):
        (self.obs / name).write_text(str(text))

    def wait_for(self, name):
        wait_until((self.obs / name).exists)
