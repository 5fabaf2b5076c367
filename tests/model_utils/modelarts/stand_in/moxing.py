# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the package moxing: obs://BUCKET/PATH is the folder $OBS/BUCKET/PATH.

Files of $OBS steer it: `fail` holds how many of the next copies fail half-way; where `pause` exists, a
folder that is fetched writes `paused` after its first file and goes on once `pause` is gone. `calls` names
every copy.
"""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace


def _root() -> Path:
    return Path(os.environ["OBS"])


def _local(url: str) -> Path:
    return _root() / url.removeprefix("obs://") if url.startswith("obs://") else Path(url)


def _fails() -> bool:
    count = _root() / "fail"
    left = int(count.read_text()) if count.exists() else 0
    if left:
        count.write_text(str(left - 1))
    return left > 0


def _note(source: str, target: str) -> None:
    with (_root() / "calls").open("a") as calls:
        calls.write(f"{os.getpid()} {source} -> {target}\n")


def copy(src_url: str, dst_url: str) -> None:
    _note(src_url, dst_url)
    data = _local(src_url).read_bytes()
    if _fails():
        _local(dst_url).write_bytes(data[: len(data) // 2])
        raise OSError("connection reset by the stand-in")
    _local(dst_url).parent.mkdir(parents=True, exist_ok=True)
    _local(dst_url).write_bytes(data)


def copy_parallel(src_url: str, dst_url: str, *, threads: int, is_processing: bool) -> None:
    assert threads > 0 and is_processing is False
    _note(src_url, dst_url)
    source, target, fails = _local(src_url), _local(dst_url), _fails()
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        if number == 0:
            while src_url.startswith("obs://") and (_root() / "pause").exists():
                (_root() / "paused").touch()
                time.sleep(0.02)
            if fails:
                raise OSError("connection reset by the stand-in")


file = SimpleNamespace(
    exists=lambda url: _local(url).exists(),
    is_directory=lambda url: _local(url).is_dir(),
    copy=copy,
    copy_parallel=copy_parallel,
)
