# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the fast convolutions of the CPU, markers that skip, and a small drawn data set."""

import contextlib
import gc
import logging
import os
import signal

os.environ.setdefault("GLOG_v", "3")

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from src.model_utils.cpu import use_fast_convolutions

use_fast_convolutions()

# Under nohup, or in the background of a script, a process starts with some of these ignored, and so do those
# that it starts.
for _number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files and folders of tests, by the order in which they run. Those that fork this process hundreds of times
# come first, as a fork takes longer the more the process holds; then those that take longest.
ORDER = {
    name: place
    for place, names in enumerate([
        ("test_new_folder.py", "test_kills.py"),
        ("test_ascend_check.py", "test_mutations.py", "system"),
        ("training",),
        ("deploy",),
    ])
    for name in names
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that train for minutes too")


def pytest_collection_modifyitems(config, items):
    # Long files early: one that is left over at the end would leave the other process idle.
    items.sort(key=lambda item: min(ORDER.get(part, len(ORDER)) for part in item.path.parts))
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="trains for minutes; run it with --slow"))
        if item.get_closest_marker("data") and not os.environ.get("QUARTET_DATA"):
            item.add_marker(pytest.mark.skip(reason="QUARTET_DATA names no folder with cifar-10-batches-bin"))


def pytest_collection_finish():
    # MindSpore collects garbage at every compilation, and would walk through all that was imported each time.
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    """With --durations N, after the slowest tests also the N slowest files."""
    count = config.getoption("durations")
    if count is None:
        return
    seconds = Counter()
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section(f"slowest {count} files" if count else "all files")
    for name, taken in seconds.most_common(count or None):
        terminalreporter.line(f"{taken:.1f}s {name}")
    terminalreporter.line(f"{seconds.total():.1f}s all together")


@pytest.fixture(scope="session")
def data_path(tmp_path_factory) -> Path:
    """A data set of the CIFAR-10 layout: 200 training and 70 test images, 4 classes told by colour."""
    from src.common.files import write_json, write_text

    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    sizes = {"data_batch_1.bin": 200, "test_batch.bin": 70}
    for name, count in sizes.items():
        labels = rng.integers(0, 4, count).astype(np.uint8)
        images = rng.integers(0, 120, (count, 3, 32, 32)).astype(np.uint8)
        images[labels < 3, labels[labels < 3]] += 120
        rows = np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1)
        (folder / name).write_bytes(rows.tobytes())
    write_text(folder / "batches.meta.txt", "red\ngreen\nblue\ngrey\n")
    write_json(folder / "sizes.json", sizes)
    return folder


@pytest.fixture
def more_if_slow(request):
    """more_if_slow(60, 300): how many cases of one kind to try, the second number with --slow."""
    return lambda few, many: many if request.config.getoption("--slow") else few


@pytest.fixture
def graph_mode():
    """Graph mode, as every device of the project runs."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture
def without_graph():
    """PyNative mode: a small network runs at once, where a graph is compiled for each of its options."""
    from src.model_utils.device_adapter import without_graph

    with without_graph():
        yield


@contextlib.contextmanager
def _logger_as_it_was():
    logger = logging.getLogger("quartet")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def plain_logger():
    """What a test runs may set up the project's logger; the tests that follow find it as it was."""
    with _logger_as_it_was():
        yield


@pytest.fixture(scope="module", autouse=True)
def _plain_logger_of_modules():
    """The same for what the fixtures of a module run."""
    with _logger_as_it_was():
        yield


@pytest.fixture
def quartet_log():
    """The records of the project's log during a test; afterwards the log is as nobody had set it up."""
    logger = logging.getLogger("quartet")
    records = []
    handler = logging.Handler(logging.INFO)
    handler.emit = records.append
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    # pytest has handlers of its own at a logger that does not propagate, and takes them away itself.
    for other in [h for h in logger.handlers if not type(h).__module__.startswith("_pytest")]:
        logger.removeHandler(other)
        other.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
