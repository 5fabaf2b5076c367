# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed at random lines lose nothing, and the next call completes and leaves no more."""

import json
import subprocess
import sys

import pytest

from tests.helpers.doors import ROOT
from tests.system.killed_commands import CASES

MOMENTS = 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_killed_at_random_lines(tmp_path, kind):
    words = [sys.executable, "-m", "tests.system.killed_commands", kind, tmp_path, MOMENTS]
    ended = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    print(kind, facts)
    assert facts["killed"] >= MOMENTS - 2 and facts["completed"] == MOMENTS  # threads change the count
