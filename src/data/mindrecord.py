# SPDX-License-Identifier: Apache-2.0
"""Images in MindRecord shards, compressed as they were, read by index; `prepare.mindrecord` writes them.

A folder holds train.mindrecord000, 001, ... and val.mindrecord000, ..., each with its index in SQLite (.db),
and mindrecord.json with the class names, counts and checksums. `mindspore.mindrecord.FileWriter` makes the
shards, and `mindspore.dataset.MindDataset` reads them: columns file_name (string), label (int32), data
(bytes). Image i of a split is row i // S of shard i % S, so each shard has images of all classes.

Any image can be had at any time, which a batch needs that is a function of its step. The index says where it
lies, and one `pread` gets it, 50,000 images a second and more. MindSpore's own `MindDataset[i]` gives 5,000 a
second however many threads ask, and eight threads that decode would wait for it. So the code here knows the
form of the shards. Their version is checked, and every image is compared after it was written.
"""

import functools
import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.files import write_json
from .binary import Split
from .decode import UnreadableImage, decode, decode_resized
from .resize import Plan

INDEX_NAME = "mindrecord.json"
MAX_SHARDS = 256  # they stay open, and a process may open some 1,000 files
SPLIT_NAMES: dict[Split, str] = {"train": "train", "test": "val"}
_PLACES = "label_0, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END"
_VERSION = "3.0"  # of MindRecord
_LENGTH_BYTES = 8  # before each image, and before the header of a shard
_MOST_HEADER = 128 << 20


class _Shards:
    """Files that stay open, for several threads to read anywhere in them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self._handles = tuple(paths), []
        for path in paths:
            self._handles.append(os.open(path, os.O_RDONLY))

    def read(self, shard: int, start: int, length: int) -> bytes:
        return os.pread(self._handles[shard], length, start)

    def __del__(self) -> None:
        for handle in self._handles:
            os.close(handle)


@dataclass(frozen=True)
class MindRecordImages:
    """One split of a data set in MindRecord shards, decoded when they are read. Threads may share it.

    Attributes:
        shards: the open files.
        places: (N, 4) int64, of each image: which shard, which row of it, first byte, number of bytes.
        labels: (N,) int32, each below the number of classes.
        class_names: the name of each class, by label.
    """

    shards: _Shards
    places: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """The name that the image file had. Raises UserError where the shard's index is damaged."""
        shard, row = self.places[index, :2].tolist()
        return _file_names(self.shards.paths[shard])[row]

    def read_bytes(self, index: int) -> bytes:
        """The image file as it was. Raises UserError if the disk fails."""
        shard, _, start, length = self.places[index].tolist()
        try:
            return self.shards.read(shard, start, length)
        except OSError as error:
            raise _damaged(self.shards.paths[shard], error.strerror) from error

    def read(self, index: int, plan: Plan | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous, with a plan resized by it: see `decode_resized`.

        Raises:
            UserError: the image cannot be read or decoded.
        """
        data = self.read_bytes(index)
        try:
            return decode_resized(data, plan) if plan else decode(data)
        except UnreadableImage as error:
            path = self.shards.paths[self.places[index, 0]]
            raise UnreadableImage(f"{path}, image {self.name(index)}", error.reason) from error

    def take(self, indices: Sequence[int] | np.ndarray) -> "MindRecordImages":
        """The images of `indices`, in their order."""
        indices = np.asarray(indices, np.int64)
        return MindRecordImages(self.shards, self.places[indices], self.labels[indices], self.class_names)


def open_mindrecord(folder: Path, split: Split) -> MindRecordImages:
    """Opens one split of a folder that `python -m src.data.prepare mindrecord` filled.

    Raises:
        UserError: something is missing, or not what its checksum says. Of the shards the length is checked.
    """
    index = _read_index(folder / INDEX_NAME)
    part = index["splits"][SPLIT_NAMES[split]]
    paths = shard_paths(folder, SPLIT_NAMES[split], len(part["shards"]))
    total = sum(part["images_per_class"])
    labels, places = np.empty(total, np.int32), np.empty((total, 4), np.int64)
    for number, (path, facts) in enumerate(zip(paths, part["shards"], strict=True)):
        if _facts(path) != facts:
            raise _damaged(path, f"it or its index {index_path(path).name} is damaged or was changed")
        shard = read_places(path)
        mine = slice(number, None, len(paths))
        labels[mine] = shard[:, 0]
        places[mine, 0], places[mine, 1], places[mine, 2:] = number, np.arange(len(shard)), shard[:, 1:]
    return MindRecordImages(_Shards(paths), places, labels, tuple(index["class_names"]))


def write_index(folder: Path, class_names: Sequence[str], labels: dict[str, np.ndarray]) -> None:
    """Writes mindrecord.json of shards that are complete, with what `open_mindrecord` checks.

    Args:
        folder: where the shards are.
        class_names: by label.
        labels: of each split, by its name in SPLIT_NAMES.
    """
    splits = {}
    for name, own in labels.items():
        shards = [_facts(path) for path in sorted(folder.glob(f"{name}.mindrecord*")) if path.suffix != ".db"]
        counts = np.bincount(own, minlength=len(class_names)).tolist()
        splits[name] = {"shards": shards, "images_per_class": counts}
    index = {"class_names": list(class_names), "splits": splits}
    write_json(folder / INDEX_NAME, index | {"sha256": _digest(index)})


def shard_paths(folder: Path, name: str, shards: int) -> list[Path]:
    """Where the shards of a split are; `name` is one of SPLIT_NAMES."""
    return [folder / f"{name}.mindrecord{number:03d}" for number in range(shards)]


def index_path(path: Path) -> Path:
    """The SQLite index of a shard."""
    return path.with_name(f"{path.name}.db")


def read_places(path: Path) -> np.ndarray:
    """(N, 3) int64 of the images of a shard: label, first byte, number of bytes.

    The form is that of MindRecord 3.0, which `mindspore.mindrecord` has written since MindSpore 1.0. What it
    writes is compared after writing, and a test reads what this version of MindSpore writes.

    Raises:
        UserError: the shard or its index is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(min(length, _MOST_HEADER)))
        version, header_size, page_size = (header[key] for key in ("version", "header_size", "page_size"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path, "its header is damaged") from error
    if version != _VERSION:
        raise _damaged(path, f"its version is {version}, not {_VERSION}")
    label, page, start, end = np.array(_select(path, _PLACES), np.int64).reshape(-1, 4).T
    first = header_size + page * page_size + start + _LENGTH_BYTES
    return np.stack([label, first, end - start - _LENGTH_BYTES], axis=1)


def _facts(path: Path) -> dict[str, int | str]:
    """The length of a shard, and a checksum over its header and its index."""
    try:
        with path.open("rb") as file:
            length = file.read(_LENGTH_BYTES)
            found = hashlib.sha256(length + file.read(min(int.from_bytes(length, "little"), _MOST_HEADER)))
        found.update(index_path(path).read_bytes())
        return {"bytes": path.stat().st_size, "sha256": found.hexdigest()}
    except FileNotFoundError as error:
        raise _damaged(Path(error.filename), "it is missing") from error
    except OSError as error:
        raise _damaged(path, error.strerror) from error


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_bytes())
        is_whole = index.pop("sha256") == _digest(index)
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, "it is damaged") from error
    if not is_whole:
        raise _damaged(path, "it is damaged or was changed")
    return index


def _digest(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} cannot be used: {reason}; write it again with python -m src.data.prepare mindrecord"
    )


def _select(path: Path, columns: str) -> list[tuple]:
    """Columns of a shard's index, a row an image. Raises UserError where it is missing or damaged."""
    address = f"{index_path(path).resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute(f"SELECT {columns} FROM INDEXES ORDER BY ROW_ID").fetchall()
    except sqlite3.Error as error:
        raise _damaged(index_path(path), str(error)) from error


@functools.lru_cache(maxsize=64)
def _file_names(path: Path) -> list[str]:
    """Of the images of a shard, in its order."""
    return [name for name, _ in _select(path, "file_name_0, label_0")]
