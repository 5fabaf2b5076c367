"""The first signal is a request, the second one the end, and afterwards all is as before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.training.signals import Interrupted, StopRequest

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_only_sets_the_request(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopRequest() as stop:
        assert not stop.came
        os.kill(os.getpid(), number)
        assert stop.came
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_exception():
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_the_process(number):
    code = (
        "import os\n"
        "from src.training.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        f"    os.kill(os.getpid(), {number:d})\n"
        "    print('still there', stop.came, flush=True)\n"
        f"    os.kill(os.getpid(), {number:d})\n"
        "    print('and still there', flush=True)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "still there True\n"
    assert done.returncode == -number


def test_the_message_says_where_it_stopped_and_how_to_go_on():
    stop = Interrupted(30, 100, Path("runs/one"))
    assert str(stop) == (
        "stopped after step 30 of 100, state saved; continue with: python train.py --resume runs/one"
    )
    assert stop.exit_code == 143
