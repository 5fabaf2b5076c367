# SPDX-License-Identifier: Apache-2.0
"""Signs of life: written where a launcher asks for them, and only there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.common import heartbeat

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from src.common import heartbeat
heartbeat.start()
for _ in range(3):
    heartbeat.progress()
    print("done", flush=True)
    sys.stdin.readline()
"""


def beating(folder, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK_ID", "MS_ROLE")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=clean | ({"QUARTET_HEARTBEAT": str(folder)} if folder else {}) | environment,
    )  # fmt: skip


def test_beats_go_on_and_progress_counts(tmp_path):
    seen = []
    with beating(tmp_path, RANK_ID="3") as process:
        until = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < until:
            beat = heartbeat.read(tmp_path, 3)
            if beat != heartbeat.Beat() and beat not in seen:
                seen.append(beat)
                process.stdin.write("\n")
                process.stdin.flush()
            time.sleep(0.02)
        process.kill()
    assert len(seen) == 3 and all(beat.code is None for beat in seen)
    assert len({beat.beats for beat in seen}) == 3 and seen == sorted(seen, key=lambda beat: beat.beats)
    assert 1 <= seen[-1].progress <= 3


@pytest.mark.parametrize("role", ["MS_SCHED", None])
def test_schedulers_and_processes_without_a_launcher_write_nothing(tmp_path, role):
    folder = tmp_path if role else None
    with beating(folder, RANK_ID="0", **({"MS_ROLE": role} if role else {})) as process:
        assert process.stdout.readline() == "done\n"
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_the_end_and_the_run_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("QUARTET_HEARTBEAT", str(tmp_path))
    monkeypatch.setenv("RANK_ID", "1")
    monkeypatch.delenv("MS_ROLE", raising=False)
    monkeypatch.setattr(heartbeat, "_code", -1)
    assert heartbeat.announced(tmp_path, 1) is None
    heartbeat.announce(tmp_path / "r")
    assert heartbeat.announced(tmp_path, 1) == heartbeat.Run(tmp_path / "r", ["--resume", f"{tmp_path}/r"])
    heartbeat.announce("r", ["--resume", "r", "--batch_size", "8"])
    assert heartbeat.announced(tmp_path, 1).words == ["--resume", "r", "--batch_size", "8"]
    (tmp_path / "rank_1").symlink_to("/dev/full")
    heartbeat.done(0)  # a full disk is not for the heartbeat to say
    (tmp_path / "rank_1").unlink()
    heartbeat.done(2)
    assert heartbeat.read(tmp_path, 1).code == 2
    assert heartbeat.read(tmp_path, 0) == heartbeat.Beat()
