"""The CIFAR-10 binary layout: reading it, after checking every file, and encoding its records.

A record is one label byte and 32x32 pixels in three planes (red, green, blue), so 3,073 bytes; a file is
records and nothing else. The official data set has five training files and one test file of 10,000 records
(https://www.cs.toronto.edu/~kriz/cifar.html). A data set with other counts says them in `sizes.json`.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from src.model_utils.errors import UserError
from src.model_utils.files import write_json, write_text

FOLDER_NAME = "cifar-10-batches-bin"
PYTHON_FOLDER_NAME = "cifar-10-batches-py"
CLASSES_NAME = "batches.meta.txt"
SIZES_NAME = "sizes.json"
TRAIN_NAME = re.compile(r"data_batch_([1-9]\d*)\.bin")
TEST_NAME = "test_batch.bin"

IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
FILE_RECORDS = 10_000
MAX_CLASSES = 256
OFFICIAL_SIZES = {**{f"data_batch_{k}.bin": FILE_RECORDS for k in range(1, 6)}, TEST_NAME: FILE_RECORDS}

Split = Literal["train", "test"]


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set in memory.

    Attributes:
        images: (N, 3, 32, 32) uint8, channels in the order red, green, blue.
        labels: (N,) int32, each below the number of classes.
        class_names: the name of each class, by label.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def encode_records(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Packs (N, 3, 32, 32) uint8 images and (N,) labels below 256 into (N, 3073) uint8 records."""
    records = np.empty((len(images), RECORD_BYTES), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = images.reshape(len(images), -1)
    return records


def find_cifar10(data_path: str | os.PathLike) -> Path:
    """The folder of the binary files: `data_path` itself, or `cifar-10-batches-bin` in it.

    Raises:
        UserError: neither is such a folder, or it is the data set's version for Python.
    """
    data_path = Path(data_path)
    for folder in (data_path, data_path / FOLDER_NAME):
        if (folder / CLASSES_NAME).is_file() or any(folder.glob("*_batch*.bin")):
            return folder
    for folder in (data_path, data_path / PYTHON_FOLDER_NAME):
        if (folder / "batches.meta").is_file() or (folder / "data_batch_1").is_file():
            raise UserError(
                f"{folder} holds the Python version of CIFAR-10; the binary version ({FOLDER_NAME}) is "
                "needed: python -m src.data.prepare cifar10"
            )
    state = f"holds no {FOLDER_NAME}" if data_path.is_dir() else "is not a folder"
    raise UserError(
        f"{data_path} {state}; give the data set's folder as data_path, "
        "or prepare it with python -m src.data.prepare cifar10"
    )


def read_cifar10(data_path: str | os.PathLike, split: Split) -> ImageSet:
    """Reads one split, after checking the length of its files and the range of its labels.

    Raises:
        UserError: the data set is not there, or one of its files is missing, short, long or mislabelled.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    folder = find_cifar10(data_path)
    class_names = _read_class_names(folder / CLASSES_NAME)
    sizes = _read_sizes(folder / SIZES_NAME)
    names = [TEST_NAME] if split == "test" else sorted(sizes.keys() - {TEST_NAME}, key=_batch_number)
    for name in names:
        _check_length(folder / name, sizes[name])

    images = np.empty((sum(sizes[name] for name in names), *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)
    end = 0
    for name in names:
        records = _read_records(folder / name, sizes[name], len(class_names))
        start, end = end, end + len(records)
        labels[start:end] = records[:, 0]
        images[start:end] = records[:, 1:].reshape(-1, *IMAGE_SHAPE)
    return ImageSet(images, labels, class_names)


def write_cifar10(folder: str | os.PathLike, train: ImageSet, test: ImageSet) -> None:
    """Writes a data set into an existing folder: training files of up to 10,000 records, and one test file.

    Counts that are not the official ones are said in sizes.json.
    """
    folder = Path(folder)
    files = {TEST_NAME: (test, slice(None))}
    for start in range(0, len(train), FILE_RECORDS):
        files[f"data_batch_{start // FILE_RECORDS + 1}.bin"] = (train, slice(start, start + FILE_RECORDS))
    sizes = {}
    for name, (source, rows) in files.items():
        records = encode_records(source.images[rows], source.labels[rows])
        records.tofile(folder / name)
        sizes[name] = len(records)
    write_classes_and_sizes(folder, train.class_names, sizes)


def write_classes_and_sizes(folder: Path, class_names: Sequence[str], sizes: dict[str, int]) -> None:
    """Writes batches.meta.txt, and sizes.json unless the files (name -> records) are the official ones."""
    write_text(folder / CLASSES_NAME, "".join(f"{name}\n" for name in class_names))
    if sizes != OFFICIAL_SIZES:
        write_json(folder / SIZES_NAME, dict(sorted(sizes.items())))


def _batch_number(name: str) -> int:
    return int(TRAIN_NAME.fullmatch(name).group(1))


def _read_text(path: Path, mend: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"cannot read {path} ({reason}); {mend}") from error


def _read_class_names(path: Path) -> tuple[str, ...]:
    lines = _read_text(path, "it must hold a class name a line").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"{path} names {len(names)} classes; a class name a line, 1 to {MAX_CLASSES}, is needed"
        )
    return names


def _read_sizes(path: Path) -> dict[str, int]:
    """File name -> number of records: what sizes.json says, or the official counts where there is none."""
    if not path.exists():
        return OFFICIAL_SIZES
    form = 'it must be like {"data_batch_1.bin": 800, "test_batch.bin": 200}'
    try:
        sizes = json.loads(_read_text(path, form))
    except ValueError as error:
        raise UserError(f"{path} is not JSON; {form}") from error
    if not isinstance(sizes, dict):
        raise UserError(f"{path} is not an object of file names and record counts; {form}")
    for name, count in sizes.items():
        if name != TEST_NAME and not TRAIN_NAME.fullmatch(name):
            raise UserError(f"{path} names the file {name!r}, which is not of this layout; {form}")
        if type(count) is not int or count < 1:
            raise UserError(f"{path} gives {name} {count!r} records, not a whole number above 0; {form}")
    if TEST_NAME not in sizes or len(sizes) < 2:
        raise UserError(f"{path} must name {TEST_NAME} and at least one training file; {form}")
    return sizes


def _check_length(path: Path, count: int) -> None:
    expected = count * RECORD_BYTES
    wanted = f"{expected:,} bytes ({count:,} records of {RECORD_BYTES:,}) expected"
    if not path.is_file():
        raise UserError(f"{path} is missing: {wanted}, 0 found; prepare the data set again")
    found = path.stat().st_size
    if found != expected:
        mend = f"prepare the data set again, or give its own counts in {SIZES_NAME}"
        raise UserError(
            f"{path} is too {'short' if found < expected else 'long'}: {wanted}, {found:,} found; {mend}"
        )


def _read_records(path: Path, count: int, classes: int) -> np.ndarray:
    try:
        records = np.fromfile(path, np.uint8).reshape(count, RECORD_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}); check the disk, or prepare the data set again"
        ) from error
    wrong = np.flatnonzero(records[:, 0] >= classes)
    if len(wrong):
        raise UserError(
            f"{path}, record {wrong[0]} (of 0 to {count - 1}) has the label {records[wrong[0], 0]}, but "
            f"{CLASSES_NAME} names {classes} classes (labels 0 to {classes - 1}); prepare the data set again"
        )
    return records
