# SPDX-License-Identifier: Apache-2.0
"""Whether MindSpore works here: a convolution in a process of its own, so that a crash is one line too."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ..model_utils.cpu import ISA
from .finding import Finding, failure, ok, warning
from .software import ROOT

TIMEOUT = 300  # seconds: on a card the first operator is compiled
SLOW = 3.0  # GFLOP/s: oneDNN's reference code reaches 1, its fast kernels 50 and more on two cores
_OF_A_LAUNCH = ("RANK_SIZE", "RANK_ID", "RANK_TABLE_FILE")  # of a process that joins others
_PROBE = f"{__package__}.probe"


def try_mindspore(target: str) -> dict[str, Any]:
    """What the probe says of a target, or `{"error": one line}`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_A_LAUNCH and not name.startswith("MS_")
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"GLOG_v": "3", **kept, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", _PROBE, target],
            env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {TIMEOUT} s"}
    if ended.returncode < 0:
        return {"error": f"it was killed by {signal.Signals(-ended.returncode).name}"}
    if not ended.returncode:
        answers = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        return json.loads(answers[-1]) if answers else {"error": "it answered nothing"}
    said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    last = said[-1] if said else f"exit code {ended.returncode}"
    return {"error": last.removeprefix("error: ").partition("; ")[0]}


def check_mindspore(found: Mapping[str, Any], target: str) -> Finding:
    """The line of what `try_mindspore` answered for `target`."""
    if "error" in found:
        mend = f"call {sys.executable} -m {_PROBE} {target}, which shows all of it"
        return failure("operators", f"a convolution fails: {found['error'][:200]}", mend)
    what = (
        f"a convolution on {found['target']} is right: {found['gflops']:.0f} GFLOP/s, "
        f"{found['start_s']:.0f} s to start"
    )
    if found["target"] == "CPU" and found["gflops"] < SLOW:
        mend = f"unset {ISA}, and look at what else uses the processor"
        return warning("operators", f"{what}; this is very slow", mend)
    return ok("operators", what)
