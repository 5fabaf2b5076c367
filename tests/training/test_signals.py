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
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal is number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_exception():
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process(first, second):
    code = (
        "import os\n"
        "from src.training.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        f"    os.kill(os.getpid(), {first:d})\n"
        "    print(stop.signal.name, flush=True)\n"
        f"    os.kill(os.getpid(), {second:d})\n"
        "    print('still there', flush=True)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{first.name}\n"
    assert done.returncode == -second


def test_listening_again_takes_the_signals_back_from_others():
    with StopRequest() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.listen()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_listening_again_does_not_undo_a_request():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.listen()
        assert stop.signal is signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_message_says_where_it_stopped_and_how_to_go_on():
    stop = Interrupted(signal.SIGTERM, 30, 100, Path("runs/one"))
    assert str(stop) == (
        "stopped by SIGTERM after step 30 of 100, state saved; "
        "continue with: python train.py --resume runs/one"
    )
    assert stop.exit_code == 143
    assert Interrupted(signal.SIGINT, 1, 2, Path("r")).exit_code == 130
