# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind while it runs: metrics.jsonl and TensorBoard events."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ..common.errors import UserError
from ..common.files import atomic_path, writing

_PLACE = ("images", "step", "epoch")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """Appends records to FOLDER/metrics.jsonl and their numbers to TensorBoard files in FOLDER/tensorboard.

    Every record has "images", the training images that the run has seen so far. They are the record's place:
    they grow whatever the batch size and the number of cards, which a resume may change, while "step" and
    "epoch" count batches of the present size. TensorBoard shows them on its step axis.

    A training record is {"images", "step", "epoch", "loss", "lr", "images_per_second"} with, where they
    apply, "loss_<part>", "loss_scale", "overflow", "grad_norm" and the optimizer's counters; an evaluation
    record {"images", "step", "epoch", "eval_top1", "eval_top5" (above 5 classes), "eval_loss", "eval_count"},
    with "monitor_<name>" where the recipe watches the network, and in the last evaluation of a run with
    test-time augmentation "eval_top1_plain" and so on, the figures of the plain view. In TensorBoard
    "eval_top1" becomes the tag eval/top1, "monitor_<name>" monitor/<name>, "lr" train/lr, and so on.

    Each record is in the files when `write` returns, so a killed process loses at most the line it was
    writing. JSON has no number for NaN and the infinities: they are written as the strings "NaN",
    "Infinity" and "-Infinity", which `read_metrics` turns back into floats.

    Args:
        folder: the run directory.
        resume_images: the training images after which the run continues. Later records are dropped from
            metrics.jsonl, as is a broken last line, and hidden in TensorBoard; earlier lines keep their
            bytes. None starts a new run; 0 starts it anew, and removes the TensorBoard files of this class.
        evaluated: whether the evaluation at that place is not made again: its record stays.

    Raises:
        UserError: the files cannot be written, a new run finds records of an old one, or metrics.jsonl has a
            broken line before the last.
    """

    def __init__(
        self, folder: str | os.PathLike, *, resume_images: int | None = None, evaluated: bool = True
    ) -> None:
        self._path = Path(folder) / "metrics.jsonl"
        if resume_images is not None:
            _drop_after(self._path, resume_images, evaluated=evaluated)
        elif self._path.exists() and self._path.stat().st_size:
            raise UserError(
                f"{self._path} holds the records of a run; resume it or choose another output_path"
            )
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self._path.open("ab")
        self._events = _EventFile(Path(folder) / "tensorboard", resume_images=resume_images)

    def write(self, record: dict[str, Any]) -> None:
        """Writes one record, with `images` as its place.

        Raises:
            UserError: the disk is full or gone.
        """
        record = {key: _plain(value) for key, value in record.items()}
        line = {key: _as_json(value) for key, value in record.items()}
        with writing(self._path):
            self._lines.write(json.dumps(line, allow_nan=False, ensure_ascii=False).encode() + b"\n")
            self._lines.flush()
        self._events.scalars(
            record["images"],
            {
                _tag(key): float(value)
                for key, value in record.items()
                if key not in _PLACE and isinstance(value, int | float)
            },
        )

    def close(self) -> None:
        """Closes the files. Raises UserError where what was written cannot be kept."""
        if self._lines.closed:
            return
        with writing(self._path):
            try:
                self._lines.close()
            finally:
                self._events.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl. A broken last line, left by a killed process, is skipped.

    Raises:
        UserError: the file cannot be read, or a line before the last is broken.
    """
    return [record for _, record in _read_lines(Path(path))]


def _read_lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Each whole line as its bytes, without the line end, and its record."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give a run directory") from error
    if not lines[-1]:
        lines.pop()
    whole = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode())
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}: line {number} is not a JSON object; mend or delete it") from error
        whole.append((line, {key: _from_json(value) for key, value in record.items()}))
    return whole


def _drop_after(path: Path, images: int, *, evaluated: bool = True) -> None:
    """Rewrites the file with the whole lines up to `images`; without a file there is nothing to drop.

    Unless `evaluated`, an evaluation at `images` is dropped, too.
    """
    if not path.exists():
        return

    def stays(record: dict[str, Any]) -> bool:
        place = record.get("images", images)
        return place < images or (place == images and (evaluated or "eval_loss" not in record))

    kept = [line + b"\n" for line, record in _read_lines(path) if stays(record)]
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(kept))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _from_json(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _tag(key: str) -> str:
    group, _, name = key.partition("_")
    return f"{group}/{name}" if group in ("eval", "monitor") else f"train/{key}"


class _EventFile:
    """A TensorBoard event file, written in the caller's thread.

    tensorboardX's SummaryWriter writes in a thread of its own, which a full disk ends: the training then
    waits for its queue for ever. The EventsWriter within it writes at once.
    """

    def __init__(self, folder: Path, *, resume_images: int | None) -> None:
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if resume_images == 0:
                for path in folder.glob(f"events.out.tfevents.*.{'[0-9]' * 4}"):
                    path.unlink()
            # Names have the time in seconds, and a writer overwrites a file of its name: this number tells
            # two of one second apart. TensorBoard reads the files in the order of their names.
            earlier = len(list(folder.glob("events.out.tfevents.*")))
            # The path is absolute since tensorboardX takes "s3:" and "gs:" for places on the network.
            self._writer = EventsWriter(str(folder.absolute() / "events"), f".{earlier:04d}")
        if resume_images is not None:
            # On reading this, TensorBoard forgets what it read of this place and later ones.
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=resume_images + 1, session_log=start))

    def scalars(self, images: int, values: dict[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._add(Event(wall_time=time.time(), step=images, summary=summary))

    def close(self) -> None:
        with writing(self._folder):
            self._writer.close()

    def _add(self, event: Event) -> None:
        with writing(self._folder):
            self._writer.write_event(event)
            self._writer.flush()
