"""Images in MindRecord shards, compressed as they were, read by index; `mindrecord_writer` writes them.

A folder holds train.mindrecord000, 001, ... and val.mindrecord000, ..., each with its index in SQLite (.db),
and mindrecord.json with the class names and counts. `mindspore.mindrecord.FileWriter` makes the shards, and
`mindspore.dataset.MindDataset` reads them: columns file_name (string), label (int32), data (bytes). Image i
of a split is row i // S of shard i % S, so each shard has images of all classes.

Reading needs no MindSpore: the index says where an image lies, and one `pread` gets it. So any image can be
had at any time, which a batch needs that is a function of its step.
"""

import functools
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from .binary import Split
from .decode import UnreadableImage, decode, decode_crop, decode_resized
from .resize import ChooseBox, Plan

INDEX_NAME = "mindrecord.json"
MAX_SHARDS = 256  # they stay open, and a process may open some 1,000 files
SPLIT_NAMES: dict[Split, str] = {"train": "train", "test": "val"}
_PLACES = "label_0, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END"
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

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous.

        Raises:
            UserError: the image cannot be read or decoded.
        """
        return self._decoded(index, decode)

    def read_resized(self, index: int, plan: Plan) -> np.ndarray:
        """(h, w, 3) uint8 RGB, see `decode_resized`. Raises UserError as `read` does."""
        return self._decoded(index, decode_resized, plan)

    def read_crop(self, index: int, choose: ChooseBox, least: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB, see `decode_crop`. Raises UserError as `read` does."""
        return self._decoded(index, decode_crop, choose, least)

    def take(self, indices: Sequence[int] | np.ndarray) -> "MindRecordImages":
        """The images of `indices`, in their order."""
        indices = np.asarray(indices, np.int64)
        return MindRecordImages(self.shards, self.places[indices], self.labels[indices], self.class_names)

    def _decoded(self, index: int, how: Callable[..., np.ndarray], *options: Any) -> np.ndarray:
        try:
            return how(self.read_bytes(index), *options)
        except UnreadableImage as error:
            path = self.shards.paths[self.places[index, 0]]
            raise UnreadableImage(f"{path}, image {self.name(index)}", error.reason) from error


def open_mindrecord(folder: Path, split: Split) -> MindRecordImages:
    """Opens one split of a folder that `write_mindrecord` filled.

    Raises:
        UserError: something is missing, damaged, or not what mindrecord.json counts.
    """
    path, name = folder / INDEX_NAME, SPLIT_NAMES[split]
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        class_names, part = tuple(index["class_names"]), index["splits"][name]
        shards, counts = int(part["shards"]), [int(count) for count in part["images_per_class"]]
        if not class_names or len(counts) != len(class_names) or not all(map(_is_name, class_names)):
            raise ValueError("it lacks the name or the count of a class")
        if min(counts) < 0:
            raise ValueError(f"it counts {min(counts)} images of a class")
        if not 1 <= shards <= MAX_SHARDS:
            raise ValueError(f"it names {shards} shards, not 1 to {MAX_SHARDS}")
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, LookupError) else error
        raise _damaged(path, reason) from error
    return open_shards(shard_paths(folder, name, shards), class_names, counts)


def shard_paths(folder: Path, name: str, shards: int) -> list[Path]:
    """Where the shards of a split are; `name` is one of SPLIT_NAMES."""
    return [folder / f"{name}.mindrecord{number:03d}" for number in range(shards)]


def index_path(path: Path) -> Path:
    """The SQLite index of a shard."""
    return path.with_name(f"{path.name}.db")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _damaged(path: Path, reason: Any) -> UserError:
    return UserError(
        f"{path} cannot be used: {reason}; write it again with python -m src.data.prepare mindrecord"
    )


def select(path: Path, columns: str) -> list[tuple]:
    """Columns of a shard's index, a row an image. Raises UserError where it is missing or damaged."""
    address = f"{index_path(path).resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute(f"SELECT {columns} FROM INDEXES ORDER BY ROW_ID").fetchall()
    except sqlite3.Error as error:
        reason = error if index_path(path).is_file() else "it is missing"
        raise _damaged(index_path(path), reason) from error


@functools.lru_cache(maxsize=64)
def _file_names(path: Path) -> list[str]:
    """Of the images of a shard, in its order."""
    return [name for name, _ in select(path, "file_name_0, label_0")]


def read_places(path: Path) -> np.ndarray:
    """(N, 3) int64 of the images of a shard: label, first byte, number of bytes.

    Raises:
        UserError: the shard or its index is missing, damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(min(length, _MOST_HEADER)))
        header_size, page_size = int(header["header_size"]), int(header["page_size"])
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path, "its header is damaged") from error
    rows = select(path, _PLACES)
    label, page, start, end = np.array(rows, np.int64).reshape(-1, 4).T
    first = header_size + page * page_size + start + _LENGTH_BYTES
    places = np.stack([label, first, end - start - _LENGTH_BYTES], axis=1)
    if len(places) and places[:, 1:].sum(1).max() > path.stat().st_size:
        raise _damaged(path, "it is cut short")
    return places


def open_shards(paths: list[Path], class_names: tuple[str, ...], counts: list[int]) -> MindRecordImages:
    """Opens the shards of a split that has so many images of each class, and raises UserError if not."""
    total = sum(counts)
    labels, places = np.empty(total, np.int32), np.empty((total, 4), np.int64)
    for number, path in enumerate(paths):
        part, mine = read_places(path), slice(number, None, len(paths))
        if len(part) != len(labels[mine]):
            raise _damaged(path, f"it has {len(part)} images, and {INDEX_NAME} counts {len(labels[mine])}")
        labels[mine] = part[:, 0]
        places[mine, 0], places[mine, 1], places[mine, 2:] = number, np.arange(len(part)), part[:, 1:]
    if labels.min(initial=0) < 0 or np.bincount(labels, minlength=len(counts)).tolist() != counts:
        raise _damaged(paths[0], f"its split has not the images of each class that {INDEX_NAME} counts")
    return MindRecordImages(_Shards(paths), places, labels, class_names)
