# SPDX-License-Identifier: Apache-2.0
"""The lines of train.log and of the screen."""

import contextlib
import io
import logging
import re
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from src.common.errors import UserError
from src.common.log import setup_logging

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@pytest.fixture
def quartet_logger():
    logger = logging.getLogger("quartet")
    before = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers[:] = []
    yield logger
    for handler in logger.handlers:
        with contextlib.suppress(OSError):
            handler.close()
    logger.handlers[:], logger.level, logger.propagate = before


def test_lines_go_to_the_file_with_a_date_and_to_the_screen_without(tmp_path, capsys, quartet_logger):
    assert setup_logging(tmp_path / "run" / "train.log") is quartet_logger
    quartet_logger.info("epoch %d: %s", 1, "图")
    quartet_logger.warning("careful")
    quartet_logger.debug("not said")
    captured = capsys.readouterr()
    assert captured.err == "epoch 1: 图\ncareful\n"
    assert captured.out == ""
    first, second = (tmp_path / "run" / "train.log").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO epoch 1: 图", first)
    assert second.endswith(" WARNING careful")


def test_setting_up_twice_replaces(tmp_path, capsys, quartet_logger):
    own = logging.StreamHandler(io.StringIO())
    quartet_logger.addHandler(own)
    root = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)
    try:
        setup_logging(tmp_path / "first.log")
        setup_logging(tmp_path / "train.log")
        setup_logging(tmp_path / "train.log")
        quartet_logger.info("once")
    finally:
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err == "once\n"
    assert (tmp_path / "train.log").read_text().count("once") == 1
    assert (tmp_path / "first.log").read_text() == ""
    assert own.stream.getvalue() == "once\n"


def test_the_log_of_a_resumed_run_is_appended_to(tmp_path, quartet_logger):
    for line in ("before", "after"):
        setup_logging(tmp_path / "train.log")
        quartet_logger.info(line)
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "before",
        "after",
    ]


def test_other_ranks_are_silent_on_the_screen(tmp_path, capsys, quartet_logger):
    setup_logging(tmp_path / "rank1.log", rank=1)
    quartet_logger.error("from rank 1")
    setup_logging(None, rank=1)
    quartet_logger.error("nowhere")
    assert capsys.readouterr().err == ""
    assert (tmp_path / "rank1.log").read_text().endswith("ERROR from rank 1\n")
    setup_logging(None)
    quartet_logger.info("here")
    assert capsys.readouterr().err == "here\n"


def test_a_line_does_not_run_into_a_progress_bar(capsys, quartet_logger):
    setup_logging(None)
    with tqdm(total=10, file=sys.stderr) as bar:
        bar.update(3)
        quartet_logger.info("a line")
    assert "a line" in re.split(r"[\r\n]", capsys.readouterr().err)


def test_a_closed_screen_does_not_stop_the_training(tmp_path, monkeypatch, quartet_logger):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    setup_logging(tmp_path / "train.log")
    monkeypatch.setattr(sys, "stderr", Closed())
    quartet_logger.info("still in the file")
    assert "still in the file" in (tmp_path / "train.log").read_text()


def test_a_log_file_that_cannot_be_opened(tmp_path, quartet_logger):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*train\.log"):
        setup_logging(tmp_path / "run" / "train.log")


@needs_full_device
def test_a_full_disk_under_the_log_file(tmp_path, capsys, quartet_logger):
    (tmp_path / "train.log").symlink_to("/dev/full")
    setup_logging(tmp_path / "train.log")
    with pytest.raises(UserError, match=r"cannot write .*train\.log: No space left"):
        quartet_logger.info("too much")
    assert "Traceback" not in capsys.readouterr().err
    setup_logging(None)


def test_a_wrong_log_call_is_reported_as_logging_does(tmp_path, capsys, quartet_logger):
    setup_logging(tmp_path / "train.log", rank=1)
    quartet_logger.info("%d", "not a number")
    assert "TypeError" in capsys.readouterr().err
