# SPDX-License-Identifier: Apache-2.0
"""Doors end with an exit code, and an expected failure is one line on standard error."""

import argparse
import os
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from src.common.cli import checkpoint_parser, flag_names, parser, run
from src.common.errors import UserError

ROOT = Path(__file__).parents[2]
VERBOSITY = "GLOG_v"


def _run(monkeypatch, main, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["door.py", *words])
    with pytest.raises(SystemExit) as end:
        run(main)
    return end.value.code


def _raise(error):
    raise error


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (143, 143)])
def test_what_main_returns_is_the_exit_code(monkeypatch, capsys, returned, code):
    assert _run(monkeypatch, lambda words: returned) == code
    assert capsys.readouterr() == ("", "")


def test_main_gets_the_words_behind_the_name(monkeypatch):
    seen = []
    _run(monkeypatch, seen.append, "--lr", "0.1")
    assert seen == [["--lr", "0.1"]]


def test_a_user_error_is_one_line_and_2(monkeypatch, capsys):
    assert _run(monkeypatch, lambda words: _raise(UserError("lr: no\n  such\tthing"))) == 2
    assert capsys.readouterr() == ("", "error: lr: no such thing\n")


def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys):
    assert _run(monkeypatch, lambda words: _raise(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "stopped by Ctrl-C\n")


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["door.py"])
    with pytest.raises(ZeroDivisionError):
        run(lambda words: 1 // 0)


@pytest.mark.parametrize(("before", "during"), [(None, "3"), ("1", "1")])
def test_framework_warnings_are_quiet_unless_asked_for(monkeypatch, before, during):
    # Set before it is deleted, so that it is put back whatever `run` leaves.
    monkeypatch.setenv(VERBOSITY, before or "")
    if before is None:
        del os.environ[VERBOSITY]
    seen = []
    _run(monkeypatch, lambda words: seen.append(os.environ[VERBOSITY]))
    assert seen == [during]


def test_a_wrong_flag_is_a_user_error_and_names_may_not_be_shortened():
    flags = parser("What it does.")
    flags.add_argument("--resume")
    with pytest.raises(UserError, match=r"argument --resume: expected one argument; see --help"):
        flags.parse_known_args(["--resume"])
    own, rest = flags.parse_known_args(["--res", "x"])
    assert own.resume is None and rest == ["--res", "x"]


def test_help_ends_with_0_and_shows_the_description(monkeypatch, capsys):
    assert (
        _run(monkeypatch, lambda words: checkpoint_parser("What it does.").parse_args(words), "--help") == 0
    )
    out, err = capsys.readouterr()
    assert "What it does." in out and "--checkpoint_path" in out and "--raw_weights" in out
    assert err == ""


def test_a_checkpoint_is_required():
    with pytest.raises(UserError, match="required: --checkpoint_path; see --help"):
        checkpoint_parser("").parse_known_args([])


def test_flags_of_a_checkpoint_door_and_keys_of_the_config():
    own, rest = checkpoint_parser("").parse_known_args(["--checkpoint_path", "a.ckpt", "--lr", "1"])
    assert (own.checkpoint_path, own.config_path, own.raw_weights) == ("a.ckpt", None, False)
    assert rest == ["--lr", "1"]


def test_words_may_stand_behind_the_keys_of_the_config():
    """Old behaviour: 32 was the first image, and cat.jpg "given where a --key is expected"."""
    flags = parser("")
    flags.add_argument("images", nargs="+")
    flags.add_argument("--top", type=int)
    words = ["--image_size", "32", "--top", "2", "cat.jpg", "--lr=1", "dog.jpg", "--widths", "[1, 2]"]
    own, rest = flags.parse_known_args(words)
    assert (own.images, own.top) == (["cat.jpg", "dog.jpg"], 2)
    assert rest == ["--image_size", "32", "--lr=1", "--widths", "[1, 2]"]


def test_a_misspelt_flag_is_matched_with_the_doors_own():
    flags = checkpoint_parser("")
    with pytest.raises(UserError, match=r"\(--checkpont_path given, --checkpoint_path is the nearest\)"):
        flags.parse_known_args(["--lr", "1", "--checkpont_path=a.ckpt"])
    with pytest.raises(
        UserError, match=r"unrecognized arguments: --raw_weigths \(--raw_weigths given, --raw_w"
    ):
        flags.parse_args(["--checkpoint_path", "a.ckpt", "--raw_weigths"])
    with pytest.raises(UserError, match="unrecognized arguments: --lr 1; see --help"):
        flags.parse_args(["--checkpoint_path", "a.ckpt", "--lr", "1"])
    assert flag_names(flags) == ["help", "checkpoint_path", "config_path", "class_names", "raw_weights"]


def test_something_around_main_gets_it_and_the_words(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["door.py", "--lr", "0.1"])
    with pytest.raises(SystemExit) as end:
        run(len, around=lambda main, words: main([*words, "more"]))
    assert end.value.code == 3


def test_a_path_without_permission_is_named(monkeypatch, capsys):
    """Old: a traceback, where a data set was looked for in a folder that may not be read."""
    assert _run(monkeypatch, lambda words: _raise(PermissionError(13, "Permission denied", "/data/x"))) == 2
    assert capsys.readouterr().err == "error: /data/x: Permission denied; check its permissions\n"
    with pytest.raises(PermissionError):  # of no file
        _run(monkeypatch, lambda words: _raise(PermissionError(1, "Operation not permitted")))


def test_a_name_that_is_too_long(monkeypatch, capsys):
    """Old: a traceback, where a door looks for an export at its path."""
    path = "x" * 300
    assert _run(monkeypatch, lambda words: Path(path).is_file()) == 2
    assert capsys.readouterr().err == f"error: {path}: File name too long; give a shorter one\n"


def test_a_python_without_the_packages_is_named(monkeypatch, capsys):
    assert _run(monkeypatch, lambda words: _raise(ModuleNotFoundError("", name="psutil._common"))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sys.executable} has no package psutil; ") and error.count("\n") == 1
    with pytest.raises(ModuleNotFoundError):  # a fault of ours
        _run(monkeypatch, lambda words: _raise(ModuleNotFoundError("", name="src.nowhere")))


def _started():
    """The words that start each door and command."""
    paths = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]
    names = [path.relative_to(ROOT) for path in paths if "    run(main" in path.read_text()]
    modules = {name: ".".join(name.with_suffix("").parts).removesuffix(".__main__") for name in names}
    return [["-m", modules[name]] if name.parts[1:] else [str(name)] for name in sorted(names)]


@pytest.mark.parametrize("words", _started(), ids=" ".join)
def test_each_command_says_what_its_python_lacks(words):
    """Old behaviour: of src.data.prepare a traceback. -S hides the packages."""
    started = [sys.executable, "-S", *words, "--checkpoint_path", "x", "--output_path", "x"]
    ended = subprocess.run(started, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1


def _process(body, **how):
    """A process that calls `run` with `main(words)` of this body."""
    code = "import os, signal, sys\nfrom src.common.cli import parser, run\n"
    code += f"def main(words):\n    {body}\nrun(main)"
    return subprocess.Popen(
        [sys.executable, "-c", code, *how.pop("words", ())], cwd=ROOT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("parser('x').parse_args(words)", ["--help"]),
        ("print('x' * 200_000)", []),
        ("print('x')", []),
    ],
    ids=["help", "long", "short"],
)
def test_output_that_nobody_reads_any_more_ends_quietly(body, words):
    with _process(f"sys.stdin.read(); {body}", words=words, stdin=subprocess.PIPE) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_another_connection_that_broke_is_an_error(monkeypatch):
    with pytest.raises(BrokenPipeError):
        _run(monkeypatch, lambda words: _raise(BrokenPipeError()))


def test_a_real_ctrl_c_ends_the_process_with_130():
    with _process("os.kill(os.getpid(), signal.SIGINT)") as process:
        assert process.communicate() == ("", "stopped by Ctrl-C\n")
    assert process.returncode == 130


def test_the_home_folder_in_a_flag(monkeypatch):
    """Old behaviour: --checkpoint_path=~/x "does not exist"."""
    monkeypatch.setenv("HOME", "/home/someone")
    flags = checkpoint_parser("")
    flags.add_argument("images", nargs="*")
    flags.add_argument("--output_path", type=Path)
    own, rest = flags.parse_known_args(
        ["--checkpoint_path=~/x", "--output_path=~/out", "~/a.jpg", "b~.jpg", "~nobody.jpg", "--run_name=~"]
    )
    assert (own.checkpoint_path, own.output_path) == ("/home/someone/x", Path("/home/someone/out"))
    assert own.images == ["/home/someone/a.jpg", "b~.jpg", "~nobody.jpg"] and rest == ["--run_name=~"]
    others = parser("")
    others.add_argument("words", nargs=argparse.REMAINDER)
    assert others.parse_args(["train.py", "--run_name", "~"]).words == ["train.py", "--run_name", "~"]


@pytest.mark.parametrize("name", ["src.tools.launch", "src.data.prepare.__main__"])
def test_a_module_says_how_it_is_started(monkeypatch, name):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", ModuleSpec(name, None))
    called = name.removesuffix(".__main__")
    assert parser("x").format_usage() == f"usage: python -m {called} [-h]\n"
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py"])
    assert parser("x").format_usage() == "usage: train.py [-h]\n"
