# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10, CIFAR-100 and data sets in their layout: reading them, after checking every file, and writing.

A file holds records and nothing else. A record of CIFAR-10 is one label byte and 32x32 pixels in three planes
(red, green, blue), 3,073 bytes. One of CIFAR-100 begins with a coarse label (one of 20), which is not used,
and a fine one (one of 100), the class. See https://www.cs.toronto.edu/~kriz/cifar.html.

What `python -m src.data.prepare` made has a file `sizes.json` with the number of records and the checksum of
each file; a data set with other counts than the official ones needs one with the counts. The version for
Python is read too. Its files are pickles, and are unpickled only if they have the published MD5.
"""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..common.errors import UserError
from ..common.files import checksum, read_text, write_json, write_text
from .resize import Plan

SIZES_NAME = "sizes.json"
IMAGE_SHAPE = (3, 32, 32)
FILE_RECORDS = 10_000
MAX_CLASSES = 256
_OWN_CHANGE = f", or take the checksum out of {SIZES_NAME} if the change is yours"

Split = Literal["train", "test"]


class OfficialFile(NamedTuple):
    """A file of an official data set.

    Attributes:
        records: their number.
        python_md5: of the file of this name in the version for Python.
    """

    records: int
    python_md5: str


@dataclass(frozen=True)
class Layout:
    """A binary data set of 32x32 images.

    Attributes:
        name: as in `--dataset` and `python -m src.data.prepare`.
        title: what people call it.
        folder_name: the folder of the files.
        python_folder_name: the folder of its version for Python.
        url: the official archive.
        md5: of the archive, in lower-case hexadecimal.
        files: the official ones, training files first, the test file last.
        classes_name: the file with a class name a line.
        classes: the names of the official classes.
        label_bytes: at the start of a record; the last of them is the label.
    """

    name: str
    title: str
    folder_name: str
    python_folder_name: str
    url: str
    md5: str
    files: dict[str, OfficialFile]
    classes_name: str
    classes: tuple[str, ...]
    label_bytes: int

    @property
    def test_name(self) -> str:
        """The name of the test file."""
        return list(self.files)[-1]

    @property
    def record_bytes(self) -> int:
        """Length of a record."""
        return self.label_bytes + int(np.prod(IMAGE_SHAPE))


CIFAR10 = Layout(
    name="cifar10",
    title="CIFAR-10",
    folder_name="cifar-10-batches-bin",
    python_folder_name="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    files={
        "data_batch_1.bin": OfficialFile(10_000, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2.bin": OfficialFile(10_000, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3.bin": OfficialFile(10_000, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4.bin": OfficialFile(10_000, "634d18415352ddfa80567beed471001a"),
        "data_batch_5.bin": OfficialFile(10_000, "482c414d41f54cd18b22e5b47cb7c3cb"),
        "test_batch.bin": OfficialFile(10_000, "40351d587109b95175f43aff81a1287e"),
    },
    classes_name="batches.meta.txt",
    classes=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    label_bytes=1,
)  # fmt: skip

CIFAR100 = Layout(
    name="cifar100",
    title="CIFAR-100",
    folder_name="cifar-100-binary",
    python_folder_name="cifar-100-python",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    files={
        "train.bin": OfficialFile(50_000, "16019d7e3df5f24257cddd939b257f8d"),
        "test.bin": OfficialFile(10_000, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    },
    classes_name="fine_label_names.txt",
    classes=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
        "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
        "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
        "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
        "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree",
        "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree",
        "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit",
        "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
        "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe",
        "whale", "willow_tree", "wolf", "woman", "worm",
    ),
    label_bytes=2,
)  # fmt: skip


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

    def read(self, index: int, plan: Plan | None = None) -> np.ndarray:
        """(32, 32, 3) uint8, C-contiguous, or what `plan` makes of it."""
        image = np.ascontiguousarray(self.images[index].transpose(1, 2, 0))
        return plan(*image.shape[:2])(image) if plan else image

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images of `indices`, in their order."""
        indices = np.asarray(indices, np.int64)
        return ImageSet(self.images[indices], self.labels[indices], self.class_names)


def find_set(layout: Layout, data_path: Path) -> Path | None:
    """The folder of the files, binary or for Python: `data_path` or one in it; None if there is none."""
    places = (
        (layout.folder_name, (layout.classes_name, *layout.files)),
        (layout.python_folder_name, tuple(map(_python_name, layout.files))),
    )
    for folder_name, names in places:
        for folder in (data_path, data_path / folder_name):
            if any((folder / name).is_file() for name in names):
                return folder
    return None


def read_set(layout: Layout, data_path: str | os.PathLike, split: Split) -> ImageSet:
    """Reads one split, after checking the length and the checksums of its files, and the range of its labels.

    Raises:
        UserError: the data set is not there, or one of its files is missing, damaged or mislabelled.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    data_path = Path(data_path)
    folder = find_set(layout, data_path)
    if folder is None:
        state = f"holds no {layout.folder_name}" if data_path.is_dir() else "is not a folder"
        raise UserError(
            f"{data_path} {state}; give the data set's folder as data_path, "
            f"or prepare it with python -m src.data.prepare {layout.name}"
        )
    if any((folder / name).is_file() for name in (layout.classes_name, *layout.files)):
        notes = _read_notes(layout, folder / SIZES_NAME)
        class_names = _read_class_names(folder / layout.classes_name, notes)
        names, read = _of_split(layout, notes, split), _read_records
    else:
        notes = {
            name: {"records": file.records, "md5": file.python_md5} for name, file in layout.files.items()
        }
        class_names = layout.classes
        names, read = _of_split(layout, notes, split), _read_python_records

    images = np.empty((sum(notes[name]["records"] for name in names), *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)
    end = 0
    for name in names:
        records = read(layout, folder / name, notes[name])
        start, end = end, end + len(records)
        labels[start:end] = records[:, layout.label_bytes - 1]
        images[start:end] = records[:, layout.label_bytes :].reshape(-1, *IMAGE_SHAPE)
        wrong = np.flatnonzero(labels[start:end] >= len(class_names))
        if len(wrong):
            raise UserError(
                f"{folder / name}, record {wrong[0]} (of 0 to {len(records) - 1}) has the label "
                f"{labels[start + wrong[0]]}, but there are {len(class_names)} classes (labels 0 to "
                f"{len(class_names) - 1}, named in {layout.classes_name}); prepare the data set again"
            )
    return ImageSet(images, labels, class_names)


def write_cifar10(folder: str | os.PathLike, train: ImageSet, test: ImageSet) -> None:
    """Writes a data set into an existing folder: training files of up to 10,000 records, and a test file."""
    folder = Path(folder)
    files = {CIFAR10.test_name: (test, slice(None))}
    for start in range(0, len(train), FILE_RECORDS):
        files[f"data_batch_{start // FILE_RECORDS + 1}.bin"] = (train, slice(start, start + FILE_RECORDS))
    for name, (source, rows) in files.items():
        pixels = source.images[rows].reshape(-1, CIFAR10.record_bytes - 1)
        np.hstack([source.labels[rows, None].astype(np.uint8), pixels]).tofile(folder / name)
    write_text(folder / CIFAR10.classes_name, "".join(f"{name}\n" for name in train.class_names))
    write_notes(CIFAR10, folder)


def write_notes(layout: Layout, folder: Path) -> None:
    """Writes sizes.json: the number of records in each file of a whole data set, and the checksums."""
    notes = {layout.classes_name: {"sha256": checksum(folder / layout.classes_name)}}
    for path in sorted(folder.glob("*.bin")):
        records = path.stat().st_size // layout.record_bytes
        notes[path.name] = {"records": records, "sha256": checksum(path)}
    write_json(folder / SIZES_NAME, notes)


def _python_name(name: str) -> str:
    return name.removesuffix(".bin")


def _of_split(layout: Layout, names: Iterable[str], split: Split) -> list[str]:
    if split == "test":
        return [layout.test_name]
    training = set(names) - {layout.test_name, layout.classes_name}
    return sorted(training, key=lambda name: (len(name), name))  # 2 before 10


def _read_class_names(path: Path, notes: dict[str, dict]) -> tuple[str, ...]:
    text = read_text(path, "it must hold a class name a line")
    _compare(path, path.read_bytes(), notes.get(path.name, {}))
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"{path} names {len(names)} classes; a class name a line, 1 to {MAX_CLASSES}, is needed"
        )
    return names


def _read_notes(layout: Layout, path: Path) -> dict[str, dict]:
    """File name -> what sizes.json says of it: `records` and `sha256`; only the official counts without one.

    In a file that was written by hand, a number stands for the records alone.
    """
    if not path.exists():
        return {name: {"records": file.records} for name, file in layout.files.items()}
    form = f'it must be like {{"{next(iter(layout.files))}": 800, "{layout.test_name}": 200}}'
    try:
        notes = json.loads(read_text(path, form))
    except ValueError as error:
        raise UserError(f"{path} is not JSON; {form}") from error
    if not isinstance(notes, dict):
        raise UserError(f"{path} is not an object of file names and record counts; {form}")
    notes = {name: note if isinstance(note, dict) else {"records": note} for name, note in notes.items()}
    for name, note in notes.items():
        known = {"sha256"} if name == layout.classes_name else {"records", "sha256"}
        if name != layout.classes_name and not re.fullmatch(r"\w+\.bin", name):
            raise UserError(f"{path} names the file {name!r}, which is not of this layout; {form}")
        if not note.keys() <= known or not re.fullmatch("[0-9a-f]{64}", str(note.get("sha256", "0" * 64))):
            raise UserError(f"{path} says of {name} what is not a number of records or a checksum; {form}")
        if "records" in known and (type(note.get("records")) is not int or note["records"] < 1):
            raise UserError(
                f"{path} gives {name} {note.get('records')!r} records, not a whole number above 0; {form}"
            )
    if layout.test_name not in notes or not _of_split(layout, notes, "train"):
        raise UserError(f"{path} must name {layout.test_name} and at least one training file; {form}")
    return notes


def _read_records(layout: Layout, path: Path, note: dict) -> np.ndarray:
    """(N, record_bytes) uint8, of N records as `note` says."""
    expected = note["records"] * layout.record_bytes
    wanted = f"{expected:,} bytes ({note['records']:,} records of {layout.record_bytes:,}) expected"
    if not path.is_file():
        raise UserError(f"{path} is missing: {wanted}, 0 found; prepare the data set again")
    found = path.stat().st_size
    if found != expected:
        raise UserError(
            f"{path} is too {'short' if found < expected else 'long'}: {wanted}, {found:,} found; "
            f"prepare the data set again, or give its own counts in {SIZES_NAME}"
        )
    try:
        records = np.fromfile(path, np.uint8, expected)
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error}); check the disk, or prepare the data set again"
        ) from error
    _compare(path, records, note)
    return records.reshape(-1, layout.record_bytes)


def _read_python_records(layout: Layout, path: Path, note: dict) -> np.ndarray:
    """The records of a file of the version for Python. `path` has the name of the binary file."""
    path = path.with_name(_python_name(path.name))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); unpack {layout.title} again") from error
    _compare(path, data, note)  # unpickling unknown bytes could run any code
    content = pickle.loads(data, encoding="latin1")
    labels = np.array(content["labels" if "labels" in content else "fine_labels"], np.uint8)
    return np.hstack([np.repeat(labels[:, None], layout.label_bytes, axis=1), content["data"]])


def _compare(path: Path, data: bytes | np.ndarray, note: dict) -> None:
    """Raises UserError where `data`, what `path` holds, has another checksum than `note` says."""
    for kind in note.keys() & {"sha256", "md5"}:
        if (found := hashlib.new(kind, data, usedforsecurity=False).hexdigest()) != note[kind]:
            raise UserError(
                f"{path} is damaged or was changed: its {kind.upper()} is {found}, not {note[kind]}; "
                f"prepare the data set again{_OWN_CHANGE if kind == 'sha256' else ''}"
            )
