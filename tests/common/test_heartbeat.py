"""Signs of life: written where a launcher asks for them, and only there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
            text = (tmp_path / "rank_3").read_text() if (tmp_path / "rank_3").exists() else ""
            if text and text not in seen:
                seen.append(text)
                process.stdin.write("\n")
                process.stdin.flush()
            time.sleep(0.02)
        process.kill()
    numbers = [tuple(map(int, text.split())) for text in seen]
    assert len(seen) == 3 and all(len(text) == 26 for text in seen)
    assert numbers == sorted(numbers) and len({beats for beats, _ in numbers}) == 3
    assert 1 <= numbers[-1][1] <= 3


@pytest.mark.parametrize("role", ["MS_SCHED", None])
def test_schedulers_and_processes_without_a_launcher_write_nothing(tmp_path, role):
    folder = tmp_path if role else None
    with beating(folder, RANK_ID="0", **({"MS_ROLE": role} if role else {})) as process:
        assert process.stdout.readline() == "done\n"
        process.kill()
    assert list(tmp_path.iterdir()) == []
