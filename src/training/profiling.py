# SPDX-License-Identifier: Apache-2.0
"""Which operators the time of a training step goes to: a trace of some steps by MindSpore's profiler."""

import contextlib
import csv
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import profiler

from ..common.files import write_json

log = logging.getLogger("quartet")

# The first steps compile the graph and fill caches.
WARMUP_STEPS = 3

# Files of the profiler with times of operators, the best first: where they lie, the columns of the operator's
# kind, of its calls (none: a row is a call) and of its time, and how many of that make a millisecond.
_TABLES = (
    ("**/ASCEND_PROFILER_OUTPUT/op_statistic*.csv", "OP Type", "Count", "Total Time(us)", 1000),
    ("**/ASCEND_PROFILER_OUTPUT/kernel_details*.csv", "Type", None, "Duration(us)", 1000),
    ("**/FRAMEWORK/cpu_op_type_info_*.csv", "op_type", "type_occurrences", "total_compute_time", 1),
)


@dataclass(frozen=True)
class Operator:
    """What the calls of one kind of operator took.

    Attributes:
        calls: a step, on average.
        ms: all of them together, a step, in milliseconds.
        share: of the time of all operators, in per cent.
    """

    operator: str
    calls: float
    ms: float
    share: float


def traced(steps: Iterator[Any], *, folder: Path, count: int) -> Iterator[Any]:
    """The same steps; `count` of them, after the first WARMUP_STEPS, are traced.

    The trace lies in `folder`, with the table of operators as operators.json; the log has its ten most
    expensive ones. What the caller does between traced steps (evaluation, a checkpoint) is traced, too.

    Args:
        steps: runs a step whenever the next is asked for, as `run_steps` does; gives its tensors.
    """
    with contextlib.closing(steps), _Trace(folder) as trace:
        outputs = ()
        for outputs in itertools.islice(steps, WARMUP_STEPS):
            yield outputs
        trace.start(outputs)
        for outputs in itertools.islice(steps, count):
            trace.steps += 1
            if trace.steps == count:
                trace.stop(outputs)
            yield outputs
        trace.stop(outputs)  # where the run has ended before
        _report(folder, trace)
        yield from steps


class _Trace:
    """MindSpore's profiler, which writes to `folder`; the block's end stops it in any case.

    Attributes:
        steps: counted by the caller.
        seconds: from start to stop.
    """

    def __init__(self, folder: Path):
        self.steps, self.seconds = 0, 0.0
        self._started: float | None = None
        self._on_ascend = ms.get_context("device_target") == "Ascend"
        activities, config = [profiler.ProfilerActivity.CPU], None
        if self._on_ascend:
            activities.append(profiler.ProfilerActivity.NPU)
            config = profiler._ExperimentalConfig(profiler_level=profiler.ProfilerLevel.Level1)
        self._profile = profiler.profile(
            activities=activities,
            start_profile=False,
            on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
            experimental_config=config,
        )

    def __enter__(self) -> "_Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(())

    def start(self, outputs: Sequence[ms.Tensor]) -> None:
        """Starts when the step of `outputs` is done."""
        self._wait(outputs)
        self._profile.start()
        self._started = time.monotonic()

    def stop(self, outputs: Sequence[ms.Tensor]) -> None:
        """Stops when the step of `outputs` is done; does nothing before the start and the second time."""
        if self._started is not None:
            self._wait(outputs)
            self.seconds = time.monotonic() - self._started
            self._started = None
            self._profile.stop()

    def _wait(self, outputs: Sequence[ms.Tensor]) -> None:
        if self._on_ascend:
            ms.runtime.synchronize()
        for value in outputs:
            value.asnumpy()


def _report(folder: Path, trace: _Trace) -> None:
    steps = trace.steps
    if not steps:
        log.warning("profile: nothing is traced, as the run has no more than %d steps", WARMUP_STEPS)
        return
    operators = read_operators(folder, steps=steps)
    if not operators:
        log.warning("profile: the trace in %s has no table of operators that is known here", folder)
        return
    step_ms = 1000 * trace.seconds / steps
    facts = {"steps": steps, "step_ms": step_ms, "operators": [asdict(row) for row in operators]}
    write_json(folder / "operators.json", facts)
    rows = [f"{row.operator:<32}{row.calls:>8.1f}{row.ms:>11.3f}{row.share:>9.1f} %" for row in operators]
    total = sum(row.ms for row in operators)
    log.info(
        "profile of %d steps, %.1f ms each, %.1f ms in operators; all of them: %s\n%s",
        steps, step_ms, total, folder / "operators.json",
        "\n".join([f"{'operator':<32}{'calls':>8}{'ms a step':>11}{'share':>11}", *rows[:10]]),
    )  # fmt: skip


def read_operators(folder: Path, *, steps: int) -> list[Operator]:
    """The operators of the newest trace in `folder` by kind, the most expensive first; empty without a table.

    Args:
        steps: how many steps were traced.
    """
    for pattern, kind, calls, duration, units in _TABLES:
        files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
        if not files:
            continue
        with files[-1].open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {kind, calls or kind, duration} <= rows[0].keys():
            continue
        sums = defaultdict(lambda: [0.0, 0.0])
        for row in rows:
            sums[row[kind]][0] += float(row[calls]) if calls else 1
            sums[row[kind]][1] += float(row[duration]) / units
        total = sum(time for _, time in sums.values()) or 1.0
        operators = [
            Operator(name, count / steps, time / steps, 100 * time / total)
            for name, (count, time) in sums.items()
        ]
        return sorted(operators, key=lambda row: -row.ms)
    return []
