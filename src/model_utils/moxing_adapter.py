# SPDX-License-Identifier: Apache-2.0
"""A door's work on ModelArts: fetch, run, and upload in any case.

    python train.py --config_path configs/resnet9/cifar10.yaml --enable_modelarts true \\
        --data_url obs://bucket/cifar10 --data_path /cache/data \\
        --output_path /cache/out --train_url obs://bucket/out

Everything here is local to one server: each has its own disk, so on each of them one process transfers while
the others wait for it. The package moxing is imported only where `enable_modelarts` is true.
"""

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..common.archive import unpack
from ..common.cli import Main, parser
from ..common.errors import UserError
from ..common.files import write_text
from ..common.lock import locked
from .config import Word, as_yaml, load_config
from .keys import Keys
from .local_adapter import get_job_id, get_rank_id, is_scheduler
from .modelarts.job import Job
from .modelarts.keys import CloudKeys
from .modelarts.tee import copied_to
from .modelarts.transfer import Bucket, fetch_once
from .run_keys import RunKeys

# What the platform's engines add to the command line; MindSpore is told by environment variables.
PLATFORM_FLAGS = ("init_method", "rank", "world_size", "num_gpus")
# The variables that local_adapter reads, and those by which the platform says the same.
VARIABLES = {"DEVICE_ID": "ASCEND_DEVICE_ID", "JOB_ID": "MA_VJ_NAME"}

Settings = Callable[[Sequence[str]], Keys]


class _CheckpointDoorKeys(CloudKeys, RunKeys):
    """Of the keys of eval.py and export.py, those that say where they run."""


def _checkpoint_door_settings(words: Sequence[str]) -> Keys:
    found = vars(_flags("config_path", *_CheckpointDoorKeys.model_fields).parse_known_args(words)[0])
    config_path = found.pop("config_path")
    return load_config(
        {name: Word(text) for name, text in found.items() if text is not None},
        config_class_of=lambda model: _CheckpointDoorKeys, config_path=config_path, others=True,
    )  # fmt: skip


def call(main: Main, arguments: Sequence[str], *, settings: Settings | None = None) -> int | None:
    """`main(arguments)`; with `enable_modelarts` among the keys, the transfers before and after it.

    A failure of `main` stays what the process ends with; a failed upload is then said in a line of its own.

    Args:
        main: the door.
        arguments: its command line.
        settings: the config that `main` makes of a command line; None for a door that starts from a
            checkpoint, whose other keys are known when that is there.

    Raises:
        UserError: the keys do not fit together, moxing is missing, or a transfer failed.
    """
    _, words = _flags(*PLATFORM_FLAGS).parse_known_args(arguments)
    settings = settings or _checkpoint_door_settings
    keys = settings(words)
    if not keys.enable_modelarts:
        return main(arguments)
    bucket = Bucket(_moxing_file(), attempts=keys.transfer_attempts, timeout=keys.transfer_timeout, say=_say)
    for ours, theirs in VARIABLES.items():
        if theirs in os.environ:
            os.environ.setdefault(ours, os.environ[theirs])
    with _signals_as_exit(), Job(get_job_id()) as job:
        code: int | None = 1
        outputs = _Outputs(words, keys, bucket, job)
        try:
            words = _fetch(words, keys, settings, bucket, job)
            if is_scheduler():
                job.leave()
            with outputs.logged():
                code = main(words)
        finally:
            # The last one has all; the first rank does not rely on it, as a process can end unseen.
            last = job.leave()
            if not is_scheduler() and (code or last or get_rank_id() == 0):
                outputs.upload(failed=bool(code))
    return code


def _say(line: str) -> None:
    print(f"modelarts: {line}", file=sys.stderr, flush=True)


def _flags(*names: str) -> argparse.ArgumentParser:
    """A parser of some words of a command line; the others are left."""
    flags = parser("", add_help=False)
    for name in names:
        switch = {"nargs": "?", "const": "true"} if name == "enable_modelarts" else {}
        flags.add_argument(f"--{name}", **switch)
    return flags


def _moxing_file() -> Any:
    try:
        return importlib.import_module("moxing").file
    except ImportError as error:
        raise UserError(
            f"enable_modelarts: true given, but the package moxing cannot be imported ({error}); "
            "ModelArts' own images have it; elsewhere leave enable_modelarts out"
        ) from error


@contextlib.contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Within it, a signal to stop is an exception, so that what has come so far is uploaded."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] != signal.SIG_IGN:  # nohup
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fetch(
    arguments: Sequence[str],
    keys: Keys,
    settings: Settings,
    bucket: Bucket,
    job: Job,
) -> list[str]:
    """Fetches what the keys name and returns the command line for the door."""
    once = partial(fetch_once, run=job.run, timeout=keys.transfer_timeout, say=_say)
    here, _ = _flags("checkpoint_path", "resume").parse_known_args(arguments)
    for name, url, target, flag in (
        ("ckpt_url", keys.ckpt_url, here.checkpoint_path or here.resume,
         "--checkpoint_path, or --resume of train.py"),
        ("pretrained_url", keys.pretrained_url, keys.pretrained_path, "--pretrained_path"),
    ):  # fmt: skip
        if url and not target:
            raise UserError(f"{name}: {url!r} given, allowed: together with {flag}, the place for it here")
        if url:
            # A run's folder goes on growing here: it is not replaced by what it once was in the bucket.
            once(name, Path(target), partial(bucket.download, url), source=url, keep=target == here.resume)
    _, words = _flags(*CloudKeys.model_fields).parse_known_args(arguments)
    if not here.resume:  # the run's own config has no part in transfers
        for name, field in CloudKeys.model_fields.items():
            if getattr(keys, name) != field.default:
                words.append(
                    f"--{name}={field.default if field.annotation is str else as_yaml(field.default)}"
                )
    if keys.data_url or keys.multi_data_url:
        # Of a run that was fetched, the folder of the data is known only now.
        target = Path(settings(arguments).data_path if here.resume else keys.data_path)
        words.append(f"--data_path={_fetch_data(keys, target, bucket, once)}")
    return words


def _fetch_data(keys: Keys, target: Path, bucket: Bucket, once: Callable[..., None]) -> Path:
    """Fetches the data sets and returns the folder that the run reads."""
    sources = _data_sources(keys)
    name = keys.modelarts_dataset_unzip_name

    def write(whole: Path) -> None:
        for folder, url in sources.items():
            bucket.download(url, whole / folder, into=True)
        if name:
            archive = _holder_of(whole, f"{name}.zip", is_there=Path.is_file) / f"{name}.zip"
            _unzip(archive)

    once("data", target, write, source=json.dumps([sources, name]))
    return _holder_of(target, name, is_there=Path.is_dir) / name if name else target / next(iter(sources))


def _unzip(archive: Path) -> None:
    """Puts the folder NAME in the place of NAME.zip, which holds that folder or what is in it."""
    unpacked, folder = archive.with_suffix(".unpacked"), archive.with_suffix("")
    unpack(archive, unpacked)
    alone = [path.name for path in unpacked.iterdir()] == [folder.name] and (unpacked / folder.name).is_dir()
    (unpacked / folder.name if alone else unpacked).rename(folder)
    shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink()


def _data_sources(keys: Keys) -> dict[str, str]:
    """Folder under data_path -> address; the empty folder is data_path itself."""
    if keys.data_url:
        return {"": keys.data_url}
    try:
        entries = json.loads(keys.multi_data_url)
        sources = {entry["dataset_name"]: entry["dataset_url"] for entry in entries}
        plain = all(type(t) is str and t for pair in sources.items() for t in pair) and not any(
            "/" in name or name in (".", "..") for name in sources
        )
    except (ValueError, TypeError, KeyError):
        entries, sources, plain = [], {}, False
    if not sources or not plain or len(sources) < len(entries):
        raise UserError(
            f"multi_data_url: {keys.multi_data_url!r} given, allowed: a JSON list of "
            '{"dataset_url": ADDRESS, "dataset_name": NAME} with plain, different names'
        )
    return sources


def _holder_of(folder: Path, name: str, *, is_there: Callable[[Path], bool]) -> Path:
    """The folder, or the one right below it, that holds `name`."""
    for holder in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if is_there(holder / name):
            return holder
    raise UserError(f"modelarts_dataset_unzip_name: there is no {name} among the data")


class _Outputs:
    """What goes back to the bucket: the output folder, or the run's own where it is continued."""

    def __init__(self, arguments: Sequence[str], keys: Keys, bucket: Bucket, job: Job):
        run_dir = _flags("resume").parse_known_args(arguments)[0].resume
        self._folder = Path(run_dir or keys.output_path)
        self._keys, self._bucket, self._job = keys, bucket, job
        inside = f"/{self._folder.name}" if run_dir else ""
        self._train_url, self._result_url = (
            url and url.rstrip("/") + inside for url in (keys.train_url, keys.result_url)
        )

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Within it, what this process prints, and what ends it, is also in the output folder's logs."""
        role = "scheduler" if is_scheduler() else f"rank{get_rank_id()}"
        with copied_to(self._folder / "logs" / f"{Path(sys.argv[0]).stem}-{role}.log") as file:
            try:
                yield
            except UserError as error:
                print(f"error: {error}", file=file)
                raise
            except BaseException:
                traceback.print_exc(file=file)
                raise

    def upload(self, *, failed: bool) -> None:
        """Uploads the folder, unless another process of this run has and nothing has changed since.

        Raises:
            UserError: an upload failed. After a failed run it is only said.
        """
        urls = [url for url in (self._train_url, self._result_url) if url]
        if not urls or not self._folder.is_dir():
            return
        try:
            with locked(self._job.folder / "upload", timeout=self._keys.transfer_timeout):
                note, state = self._job.folder / "uploaded", json.dumps([self._job.run, urls, self._state()])
                if not note.exists() or note.read_text() != state:
                    self._copy()
                    write_text(note, state)
                    _say(f"upload: {self._folder} is in {' and '.join(urls)}")
        except (UserError, OSError) as error:  # OSError: a file that is gone, as others may still be at work
            line = f"{error}; the outputs are in {self._folder.resolve()} on this server"
            if not failed:
                raise UserError(line) from error
            print(f"error: {line}", file=sys.stderr)

    def _copy(self) -> None:
        if self._train_url:
            self._bucket.upload(self._folder, self._train_url)
        if self._result_url:
            with tempfile.TemporaryDirectory(dir=self._job.folder) as stage:
                results = Path(stage) / "results"
                shutil.copytree(self._folder, results, ignore=shutil.ignore_patterns("checkpoints", ".*"))
                self._bucket.upload(results, self._result_url)

    def _state(self) -> list:
        """Changes with every file of the folder."""
        files = [path for path in sorted(self._folder.rglob("*")) if path.is_file()]
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
