"""The CIFAR-10 binary layout: reading it, after checking every file, and encoding its records.

A record is one label byte and 32x32 pixels in three planes (red, green, blue), so 3,073 bytes; a file is
records and nothing else. The official data set has five training files and one test file of 10,000 records
(https://www.cs.toronto.edu/~kriz/cifar.html). A data set with other counts says them in `sizes.json`.
CIFAR-100 is read by the same code: `Layout` says how the two differ.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..common.errors import UserError
from ..common.files import write_json, write_text
from .resize import ChooseBox, Plan, cut

SIZES_NAME = "sizes.json"
TEST_NAME = "test_batch.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGE_SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32
FILE_RECORDS = 10_000
MAX_CLASSES = 256


@dataclass(frozen=True)
class Layout:
    """A binary data set of 32x32 images: its files, and where it comes from.

    Attributes:
        name: as in `--dataset` and `python -m src.data.prepare`.
        title: what people call it.
        folder_name: the folder of the files.
        classes_name: the file with a class name a line.
        train_name: matches the names of training files.
        test_name: the name of the test file.
        label_bytes: at the start of a record; the last of them is the label.
        official_sizes: file name -> records, training files first.
        official_classes: the names of its classes.
        url: the official archive.
        md5: of the archive, in lower-case hexadecimal.
        python_folder_name: the folder of its version for Python.
        python_names: files that this version holds.
    """

    name: str
    title: str
    folder_name: str
    classes_name: str
    train_name: re.Pattern
    test_name: str
    label_bytes: int
    official_sizes: dict[str, int]
    official_classes: tuple[str, ...]
    url: str
    md5: str
    python_folder_name: str
    python_names: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        """Length of a record."""
        return self.label_bytes + IMAGE_BYTES


CIFAR10 = Layout(
    name="cifar10",
    title="CIFAR-10",
    folder_name="cifar-10-batches-bin",
    classes_name="batches.meta.txt",
    train_name=re.compile(r"data_batch_([1-9]\d*)\.bin"),
    test_name=TEST_NAME,
    label_bytes=1,
    official_sizes={**{f"data_batch_{k}.bin": FILE_RECORDS for k in range(1, 6)}, TEST_NAME: FILE_RECORDS},
    official_classes=CLASSES,
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    python_folder_name="cifar-10-batches-py",
    python_names=("batches.meta", "data_batch_1"),
)

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

    def name(self, index: int) -> str:
        """The number of an image, as it has no file of its own."""
        return str(index)

    def read(self, index: int) -> np.ndarray:
        """(32, 32, 3) uint8, C-contiguous."""
        return np.ascontiguousarray(self.images[index].transpose(1, 2, 0))

    def read_resized(self, index: int, plan: Plan) -> np.ndarray:
        """(h, w, 3) uint8: what `plan` makes of 32x32 pixels."""
        return plan(*self.images.shape[2:])(self.read(index))

    def read_crop(self, index: int, choose: ChooseBox, least: int) -> np.ndarray:
        """(height, width, 3) uint8: the box, whatever `least` is."""
        return cut(self.read(index), choose(*self.images.shape[2:]))

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images of `indices`, in their order."""
        indices = np.asarray(indices, np.int64)
        return ImageSet(self.images[indices], self.labels[indices], self.class_names)


def encode_records(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Packs (N, 3, 32, 32) uint8 images and (N,) labels below 256 into (N, 3073) uint8 records."""
    records = np.empty((len(images), CIFAR10.record_bytes), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = images.reshape(len(images), -1)
    return records


def find_set(layout: Layout, data_path: Path) -> Path | None:
    """The folder of the binary files: `data_path` itself, the layout's folder in it, or None."""
    return _find(data_path, layout.folder_name, (layout.classes_name, *layout.official_sizes))


def find_python_version(layout: Layout, data_path: Path) -> Path | None:
    """The folder of the version for Python, which is not read here, or None."""
    return _find(data_path, layout.python_folder_name, layout.python_names)


def find_cifar10(data_path: str | os.PathLike) -> Path:
    """The folder of CIFAR-10's binary files: `data_path` itself, or `cifar-10-batches-bin` in it.

    Raises:
        UserError: neither is such a folder, or it is the data set's version for Python.
    """
    return _require(CIFAR10, Path(data_path))


def read_cifar10(data_path: str | os.PathLike, split: Split) -> ImageSet:
    """`read_set` of CIFAR-10."""
    return read_set(CIFAR10, data_path, split)


def read_set(layout: Layout, data_path: str | os.PathLike, split: Split) -> ImageSet:
    """Reads one split, after checking the length of its files and the range of its labels.

    Raises:
        UserError: the data set is not there, or one of its files is missing, short, long or mislabelled.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    folder = _require(layout, Path(data_path))
    class_names = _read_class_names(folder / layout.classes_name)
    sizes = _read_sizes(layout, folder / SIZES_NAME)
    training = sorted(sizes.keys() - {layout.test_name}, key=lambda name: (len(name), name))  # 2 before 10
    names = [layout.test_name] if split == "test" else training
    for name in names:
        _check_length(folder / name, sizes[name], layout.record_bytes)

    images = np.empty((sum(sizes[name] for name in names), *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)
    end = 0
    for name in names:
        records = _read_records(folder / name, sizes[name], layout.record_bytes)
        start, end = end, end + len(records)
        labels[start:end] = records[:, layout.label_bytes - 1]
        images[start:end] = records[:, layout.label_bytes :].reshape(-1, *IMAGE_SHAPE)
        _check_labels(labels[start:end], folder / name, len(class_names), layout.classes_name)
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
    write_text(folder / CIFAR10.classes_name, "".join(f"{name}\n" for name in class_names))
    if sizes != CIFAR10.official_sizes:
        write_json(folder / SIZES_NAME, dict(sorted(sizes.items())))


def _find(data_path: Path, folder_name: str, names: Sequence[str]) -> Path | None:
    folders = (data_path, data_path / folder_name)
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)


def _require(layout: Layout, data_path: Path) -> Path:
    if folder := find_set(layout, data_path):
        return folder
    if folder := find_python_version(layout, data_path):
        raise UserError(
            f"{folder} holds the Python version of {layout.title}; the binary version ({layout.folder_name}) "
            f"is needed: python -m src.data.prepare {layout.name}"
        )
    state = f"holds no {layout.folder_name}" if data_path.is_dir() else "is not a folder"
    raise UserError(
        f"{data_path} {state}; give the data set's folder as data_path, "
        f"or prepare it with python -m src.data.prepare {layout.name}"
    )


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


def _read_sizes(layout: Layout, path: Path) -> dict[str, int]:
    """File name -> number of records: what sizes.json says, or the official counts where there is none."""
    if not path.exists():
        return layout.official_sizes
    test_name = layout.test_name
    form = f'it must be like {{"{next(iter(layout.official_sizes))}": 800, "{test_name}": 200}}'
    try:
        sizes = json.loads(_read_text(path, form))
    except ValueError as error:
        raise UserError(f"{path} is not JSON; {form}") from error
    if not isinstance(sizes, dict):
        raise UserError(f"{path} is not an object of file names and record counts; {form}")
    for name, count in sizes.items():
        if name != test_name and not layout.train_name.fullmatch(name):
            raise UserError(f"{path} names the file {name!r}, which is not of this layout; {form}")
        if type(count) is not int or count < 1:
            raise UserError(f"{path} gives {name} {count!r} records, not a whole number above 0; {form}")
    if test_name not in sizes or len(sizes) < 2:
        raise UserError(f"{path} must name {test_name} and at least one training file; {form}")
    return sizes


def _check_length(path: Path, count: int, record_bytes: int) -> None:
    expected = count * record_bytes
    wanted = f"{expected:,} bytes ({count:,} records of {record_bytes:,}) expected"
    if not path.is_file():
        raise UserError(f"{path} is missing: {wanted}, 0 found; prepare the data set again")
    found = path.stat().st_size
    if found != expected:
        mend = f"prepare the data set again, or give its own counts in {SIZES_NAME}"
        raise UserError(
            f"{path} is too {'short' if found < expected else 'long'}: {wanted}, {found:,} found; {mend}"
        )


def _read_records(path: Path, count: int, record_bytes: int) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8).reshape(count, record_bytes)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}); check the disk, or prepare the data set again"
        ) from error


def _check_labels(labels: np.ndarray, path: Path, classes: int, classes_name: str) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise UserError(
            f"{path}, record {wrong[0]} (of 0 to {len(labels) - 1}) has the label {labels[wrong[0]]}, but "
            f"{classes_name} names {classes} classes (labels 0 to {classes - 1}); prepare the data set again"
        )
