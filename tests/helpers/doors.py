# SPDX-License-Identifier: Apache-2.0
"""Calling a door or a tool as its command line does, here or in a process of its own; what it answered."""

import contextlib
import io
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import mindspore as ms
import pytest

from src.common.cli import run

ROOT = Path(__file__).parents[2]


def call_door(script: str, *arguments, **keys) -> subprocess.CompletedProcess:
    """`python script arguments --key value ...` without a new process, which saves importing MindSpore.

    call_door("train.py", "--flag", value, key=value) -> returncode, stdout, stderr. The logger, the
    environment, the folder and MindSpore's mode are afterwards as before.
    """
    return _ended(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"), script, arguments, keys)


def call_main(main: Callable, *arguments, **keys) -> subprocess.CompletedProcess:
    """The same for the main(words) of a tool."""
    return _ended(lambda: run(main), main.__module__, arguments, keys)


def call_python(words: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess:
    """What `python WORD ...` does in that folder: a door of the repository, or -m and a module."""

    def call():
        if module:
            runpy.run_module(name, run_name="__main__")
        else:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        sys.exit(0)  # as at the end of a program

    module = words[0] == "-m"
    name, *rest = words[module:]
    return _ended(call, name, rest, {}, folder)


def start_door(script: str, *arguments, **keys) -> subprocess.CompletedProcess:
    """The same in a process of its own, for what only such a one shows."""
    command = [sys.executable, script, *_words(arguments, keys)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def _words(arguments, keys) -> list[str]:
    given = [text for key, value in keys.items() for text in (f"--{key}", value)]
    return [str(word) for word in (*arguments, *given)]


def _ended(call, name, arguments, keys, folder=ROOT) -> subprocess.CompletedProcess:
    words, out, err = [name, *_words(arguments, keys)], io.StringIO(), io.StringIO()
    with (
        _as_it_was(folder), mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end,
    ):  # fmt: skip
        call()
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _as_it_was(folder):
    logger, mode = logging.getLogger("quartet"), ms.get_context("mode")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = []
    try:
        with mock.patch.dict(os.environ), contextlib.chdir(folder):
            yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
        ms.set_context(mode=mode)


def last_json(ended: subprocess.CompletedProcess) -> dict:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def error_of(ended: subprocess.CompletedProcess) -> str:
    """The one line of a refused call."""
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    return errors[0]


def check_same_answers(door: Callable, pictures, model, checkpoint, *, count: int) -> None:
    """infer.py says the same of `count` pictures by both files."""
    answers = [
        last_json(door("infer.py", pictures, "--json", model_path=path))["results"]
        for path in (model, checkpoint)
    ]
    assert len(answers[0]) == count
    for exported, network in zip(*answers, strict=True):
        ours, theirs = ({p["class"]: p["probability"] for p in r["predictions"]} for r in (exported, network))
        assert ours.keys() == theirs.keys()
        assert all(ours[name] == pytest.approx(theirs[name], abs=1e-4) for name in ours)
