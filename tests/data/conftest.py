# SPDX-License-Identifier: Apache-2.0
"""Small random data sets, and a web server on this machine, for the tests of the data package."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from src.data.binary import CIFAR100, ImageSet
from tests.helpers.folders import save
from tests.helpers.image_files import SAVED


@pytest.fixture(params=SAVED)
def path(tmp_path, request) -> Path:
    """A file of each kind."""
    path = tmp_path / request.param
    SAVED[request.param](path)
    return path


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    """make_set(count, classes=10, seed=0): random images, no two of them the same, with random labels."""

    def make(count: int, classes: int = 10, seed: int = 0) -> ImageSet:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
        labels = rng.integers(0, classes, count).astype(np.int32)
        return ImageSet(images, labels, tuple(f"class {k}" for k in range(classes)))

    return make


@pytest.fixture
def write_cifar100() -> Callable[..., Path]:
    """write_cifar100(folder, {"train": n, "test": m}): the official layout and classes, random records."""

    def write(folder: Path, counts: dict[str, int]) -> Path:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split, count in counts.items():
            records = rng.integers(0, 256, (count, 2 + 3072), np.uint8)
            records[:, 0], records[:, 1] = rng.integers(0, 20, count), rng.integers(0, 100, count)
            records.tofile(folder / f"{split}.bin")
        (folder / "fine_label_names.txt").write_text("\n".join(CIFAR100.classes) + "\n\n")
        (folder / "sizes.json").write_text(json.dumps({f"{split}.bin": n for split, n in counts.items()}))
        return folder

    return write


class FileServer:
    """Serves `data` at `url` on this machine, and keeps what was asked for.

    Attributes:
        data: the bytes of the file.
        ranges: whether requests for a part are answered with the part (206) or with the whole (200).
        stop_after: bytes of a body after which the connection ends, or None.
        stall: keep the connection open after the body, and silent, until the test is over.
        status: answer with this error instead, or None.
        shift: how many bytes later than asked for a part begins.
        requests: the Range header (or None) of each request.
    """

    def __init__(self):
        self.data = b""
        self.ranges, self.stop_after, self.stall, self.status, self.shift = True, None, False, None, 0
        self.requests = []
        self.over = threading.Event()
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                files.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.tar.gz"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append(asked)
        if self.status is not None:
            request.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else None
        if start is not None and start >= len(self.data):
            request.send_error(416)
            return
        if start is None:
            body = self.data
            request.send_response(200)
        else:
            start += self.shift
            body = self.data[start:]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.stop_after])
        if self.stall:
            self.over.wait()


@pytest.fixture
def server(monkeypatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    files = FileServer()
    thread = threading.Thread(target=files.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield files
    files.over.set()
    files.server.shutdown()
    files.server.server_close()
    thread.join()


@pytest.fixture
def make_folder(tmp_path):
    """make_folder("train/a", "val/a/x.jpg", "b/", count=3): folders of pictures, files, empty folders."""

    def make(*paths, count=3):
        root = tmp_path / "data"
        for path in paths:
            if path.endswith("/"):
                (root / path).mkdir(parents=True)
            elif "." in path:
                save(root / path)
            else:
                for k in range(count):
                    save(root / path / f"{k}.jpg")
        return root

    return make
