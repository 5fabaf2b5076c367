# SPDX-License-Identifier: Apache-2.0
"""Training steps of several implementations, timed in turns, so that a drift of the machine meets all."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.record import ROOT


def answer(reply: Callable[[Any], Any]) -> None:
    """Answers each line of JSON on standard input with one."""
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), flush=True)


def serve(step: Callable[[], object]) -> None:
    """Makes one step for each line on standard input and answers with its seconds."""

    def timed(_: Any) -> float:
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    answer(timed)


class Peer:
    """A process that makes steps on demand: `command` ends in a call of `serve`, or of `answer`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> float:
        """Seconds of one step."""
        return self.ask("step")

    def ask(self, question: Any) -> Any:
        """What it answers."""
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """The next that it says in JSON."""
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:  # a framework's own words
                continue
        sys.exit(f"{self.process.args} ended before it answered")

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.communicate()


def take_turns(peers: Mapping[str, Peer], *, steps: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of `steps` steps of each, one of each at a time."""
    for peer in peers.values():
        for _ in range(warm_up):
            peer.step()
    seconds = {name: [] for name in peers}
    for _ in range(steps):
        for name, peer in peers.items():
            seconds[name].append(peer.step())
    return seconds


def ratios(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> list[float]:
    """Of each turn."""
    return [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]


def report(seconds: Mapping[str, list[float]], ratio: Mapping[str, dict]) -> None:
    """Prints medians and ranges."""
    for name, values in seconds.items():
        print(f"{name:10} median {statistics.median(values):.2f} s  ({min(values):.2f} to {max(values):.2f})")
    for name, values in ratio.items():
        print(f"ratio to {name}: median {values['median']:.2f}  ({values['min']:.2f} to {values['max']:.2f})")
