"""A door's work on ModelArts: fetch, run, and upload in any case.

    python train.py --config_path configs/resnet9/cifar10.yaml --enable_modelarts true \\
        --data_url obs://bucket/cifar10 --data_path /cache/data \\
        --output_path /cache/out --train_url obs://bucket/out

Everything here is local to one server: each has its own disk, so on each of them one process transfers while
the others wait for it. The package moxing is imported only where `enable_modelarts` is true.
"""

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.cli import parser
from ..common.errors import UserError
from ..common.files import write_text
from .config import as_yaml, check, parse_value, read_yaml
from .local_adapter import get_job_id, get_rank_id, is_scheduler
from .modelarts.job_lock import Job
from .modelarts.keys import CloudKeys
from .modelarts.safe_zip import unzip
from .modelarts.tee import copied_to
from .modelarts.transfer import Bucket, Place
from .run_keys import RunKeys

# Where a door reads and writes on this server.
PLACES = ("data_path", "output_path", "pretrained_path", "checkpoint_path", "resume", "config_path")
# What the platform's engines add to the command line; MindSpore is told by environment variables.
PLATFORM_FLAGS = ("init_method", "rank", "world_size", "num_gpus")
# The variables that local_adapter reads, and those by which the platform says the same.
VARIABLES = {"DEVICE_ID": "ASCEND_DEVICE_ID", "JOB_ID": "MA_VJ_NAME"}

Main = Callable[[Sequence[str]], int | None]


def call(main: Main, arguments: Sequence[str]) -> int | None:
    """`main(arguments)`; with `enable_modelarts` among the keys, the transfers before and after it.

    A failure of `main` stays what the process ends with; a failed upload is then said in a line of its own.

    Raises:
        UserError: the keys do not fit together, moxing is missing, or a transfer failed.
    """
    request = _read(arguments)
    keys = request.keys
    if not keys.enable_modelarts:
        return main(arguments)
    bucket = Bucket(_moxing_file(), attempts=keys.transfer_attempts, timeout=keys.transfer_timeout, say=_say)
    for ours, theirs in VARIABLES.items():
        if theirs in os.environ:
            os.environ.setdefault(ours, os.environ[theirs])
    name = get_job_id()
    with _sigterm_as_exit(), Job(name, say=_say, again=name != "local") as job:
        outputs = _Outputs(request, bucket, job)
        code: int | None = 1
        try:
            words = _fetch(request, bucket, job)
            if is_scheduler():
                job.leave()
            with outputs.logged():
                code = main(words)
        finally:
            job.leave()
            # The last one has all; the first rank does not rely on it, as a process can end unseen.
            last = not job.others_alive()
            if not is_scheduler() and (code or last or get_rank_id() == 0):
                outputs.upload(failed=bool(code))
    return code


def _say(line: str) -> None:
    print(f"modelarts: {line}", file=sys.stderr, flush=True)


def _moxing_file() -> Any:
    try:
        return importlib.import_module("moxing").file
    except ImportError as error:
        raise UserError(
            f"enable_modelarts: true given, but the package moxing cannot be imported ({error}); "
            "ModelArts' own images have it; elsewhere leave enable_modelarts out"
        ) from error


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Within it, SIGTERM is an exception, so that what has come so far is uploaded."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Request:
    """A command line, taken apart: the cloud's keys, the places it names, the recipe, all other words."""

    keys: CloudKeys
    named: dict[str, str]
    recipe: dict[str, Any]
    rest: list[str]

    def place(self, name: str) -> str:
        """The place of that name: the command line's, the recipe's, or the default."""
        return self.named.get(name) or self.recipe.get(name) or RunKeys.model_fields[name].default


def _read(arguments: Sequence[str]) -> _Request:
    flags = parser("", add_help=False)
    for name in (*CloudKeys.model_fields, *PLACES, *PLATFORM_FLAGS):
        switch = {"nargs": "?", "const": "true"} if name == "enable_modelarts" else {}
        flags.add_argument(f"--{name}", **switch)
    found, rest = flags.parse_known_args(arguments)
    given = {name: value for name, value in vars(found).items() if value is not None}
    recipe = read_yaml(given["config_path"]) if "config_path" in given else {}
    keys = {}
    for name, field in CloudKeys.model_fields.items():
        if name in given:
            keys[name] = given[name] if field.annotation is str else parse_value(given[name])
        elif name in recipe:
            value = recipe[name]
            keys[name] = json.dumps(value) if isinstance(value, list) else value
            default = field.default if field.annotation is str else as_yaml(field.default)
            rest.append(f"--{name}={default}")  # the run's own config has no part in transfers
    named = {name: given[name] for name in PLACES if name in given}
    return _Request(check(keys, CloudKeys), named, recipe, rest)


def _fetch(request: _Request, bucket: Bucket, job: Job) -> list[str]:
    """Fetches what the keys name and returns the command line for the door."""
    keys, named = request.keys, dict(request.named)
    if keys.data_url or keys.multi_data_url:
        named["data_path"] = str(_fetch_data(request, bucket, job))
    checkpoint = named.get("checkpoint_path") or named.get("resume")
    pretrained = request.place("pretrained_path")
    for key, url, target, flag in (
        ("ckpt_url", keys.ckpt_url, checkpoint, "--checkpoint_path, or --resume of train.py"),
        ("pretrained_url", keys.pretrained_url, pretrained, "--pretrained_path"),
    ):
        if url and not target:
            raise UserError(f"{key}: {url!r} given, allowed: together with {flag}, the place for it here")
        if url:
            # A run's folder goes on growing here: it is not replaced by what it once was in the bucket.
            keep = target == named.get("resume")
            place = Place(Path(target), run=job.run, source=url, keep=keep)
            _fill_once(job, key, place, lambda whole, url=url: bucket.download(url, whole), keys)
    return [*request.rest, *(f"--{name}={value}" for name, value in named.items())]


def _fetch_data(request: _Request, bucket: Bucket, job: Job) -> Path:
    """Fetches the data sets and returns the folder that the run reads."""
    keys, target = request.keys, Path(request.place("data_path"))
    sources = _data_sources(keys)
    name = keys.modelarts_dataset_unzip_name

    def write(whole: Path) -> None:
        for folder, url in sources.items():
            bucket.download(url, whole / folder, into=True)
        if name:
            archive = _holder_of(whole, f"{name}.zip", is_there=Path.is_file) / f"{name}.zip"
            unzip(archive, archive.parent / name)
            archive.unlink()

    place = Place(target, run=job.run, source=json.dumps([sources, name]))
    _fill_once(job, "data", place, write, keys)
    return _holder_of(target, name, is_there=Path.is_dir) / name if name else target / next(iter(sources))


def _data_sources(keys: CloudKeys) -> dict[str, str]:
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


def _fill_once(job: Job, what: str, place: Place, write: Callable[[Path], None], keys: CloudKeys) -> None:
    def is_done() -> bool:
        done = place.is_filled()
        if done:
            _say(f"{what}: {place.target} is filled already")
        return done

    def work() -> None:
        place.fill(write)
        _say(f"{what}: fetched to {place.target}")

    job.once(what, work, is_done=is_done, timeout=keys.transfer_timeout)


class _Outputs:
    """What goes back to the bucket: the output folder, or the run's own where it is continued."""

    def __init__(self, request: _Request, bucket: Bucket, job: Job):
        run_dir = request.named.get("resume")
        self._folder = Path(run_dir or request.place("output_path"))
        self._keys, self._bucket, self._job = request.keys, bucket, job
        self._inside = f"/{self._folder.name}" if run_dir else ""

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
        """Uploads what has changed since the last upload of this run.

        Raises:
            UserError: an upload failed. After a failed run it is only said.
        """
        targets = [url for url in (self._keys.train_url, self._keys.result_url) if url]
        if not targets or not self._folder.is_dir():
            return
        try:
            with self._job.hold("upload", timeout=self._keys.transfer_timeout):
                note = self._job.folder / "uploaded"
                state = f"{self._job.run} {targets} {self._signature()}"
                if not note.exists() or note.read_text() != state:
                    self._copy()
                    write_text(note, state)
                    _say(f"upload: {self._folder} is in {' and '.join(targets)}")
        except (UserError, OSError) as error:  # OSError: a file that is gone, as others may still be at work
            line = f"{error}; the outputs are in {self._folder.resolve()} on this server"
            if not failed:
                raise UserError(line) from error
            print(f"error: {line}", file=sys.stderr)

    def _copy(self) -> None:
        if self._keys.train_url:
            self._bucket.upload(self._folder, self._keys.train_url.rstrip("/") + self._inside)
        if self._keys.result_url:
            with tempfile.TemporaryDirectory(dir=self._job.folder) as stage:
                results = Path(stage) / "results"
                shutil.copytree(self._folder, results, ignore=shutil.ignore_patterns("checkpoints", ".*"))
                self._bucket.upload(results, self._keys.result_url.rstrip("/") + self._inside)

    def _signature(self) -> str:
        """Changes with every file of the folder."""
        facts = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
        ]
        return hashlib.sha256(repr(facts).encode()).hexdigest()
