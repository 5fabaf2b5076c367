# SPDX-License-Identifier: Apache-2.0
"""Where images come from: finding a data set, and images in class folders, read when they are asked for.

A source has `labels` (N,) int32, `class_names`, `len()`, `name(index)` -> its file or number, and
`take(indices)` -> a source of those images. It gives uint8 RGB pixels: `read(index)` -> (H, W, 3), or with a
plan what `decode.decode_resized` makes. `ImageSet` (in memory), `ImageFiles` and `MindRecordImages` are such,
and `damage.ReadablePictures` around one of the last two.
"""

import contextlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.files import relative_to
from .binary import CIFAR10, CIFAR100, ImageSet, Layout, Split, find_set, read_set
from .decode import decode, decode_resized
from .folders import class_folders, some_of
from .mindrecord import INDEX_NAME, MindRecordImages, open_mindrecord
from .names import LABEL_FILES, ClassNames, split_of
from .resize import Plan
from .splits import Item, Listing, list_folder, list_tests

_SIZES = 32  # files whose size is asked for

SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class ImageFiles:
    """One split of a data set in image files, decoded when they are read. Threads may share it.

    Attributes:
        files: the path of each image.
        labels: (N,) int32, each below the number of classes.
        class_names: the name of each class, by label.
        words: what the folder holds, and what of it was left out, a line each.
        listed: a checksum that tells this split, before any image was left out, from others.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    words: tuple[str, ...] = ()
    listed: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The file of an image."""
        return self.files[index]

    def read(self, index: int, plan: Plan | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous. Raises UnreadableImage where the file cannot be decoded."""
        return decode_resized(self.files[index], plan) if plan else decode(self.files[index])

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageFiles":
        """The images of `indices`, in their order."""
        files = tuple(self.files[index] for index in indices)
        return replace(self, files=files, labels=self.labels[np.asarray(indices, np.int64)])


Images = ImageSet | ImageFiles | MindRecordImages


def _find_binary(layout: Layout, data_path: Path) -> int:
    return 3 * bool(find_set(layout, data_path))


def _find_folder(data_path: Path) -> int:
    folders = class_folders(data_path) if data_path.is_dir() else []
    if any(split_of(name) == "train" for name in folders):
        return 3
    return bool(folders) or any((data_path / name).is_file() for name in LABEL_FILES)


@dataclass(frozen=True)
class DataSet:
    """One choice of `dataset`.

    Attributes:
        find: how surely a folder holds it: 3 it does, 1 perhaps, 0 it doesn't.
        open: (data_path, splits, settings of `open_splits`) -> those splits, in their order.
        open_tests: (data_path, class_names, settings of `open_tests`) -> the test images by these names;
            None: those of `open`, whatever the settings.
    """

    find: Callable[[Path], int]
    open: Callable[..., list[Images]]
    open_tests: Callable[..., Images] | None = None


def _each(open_one: Callable[[Path, Split], Images]) -> Callable[..., list[Images]]:
    return lambda data_path, splits, **_: [open_one(data_path, split) for split in splits]


def _open_folder(data_path: Path, splits: Sequence[Split], **how) -> list[Images]:
    listing = list_folder(data_path, **how)
    return [_files_of(listing, getattr(listing, split), data_path) for split in splits]


def _open_folder_tests(data_path: Path, class_names: Sequence[str], **how) -> Images:
    listing = list_tests(data_path, class_names, **how)
    return _files_of(listing, listing.test, data_path)


def _files_of(listing: Listing, items: Sequence[Item], data_path: Path) -> ImageFiles:
    if not items:
        raise UserError(
            f"{listing.test_root or listing.train_root}: no image can be held out, each class has one; "
            "add images, or a folder val"
        )
    files, labels = zip(*items, strict=True)
    labels, words = np.array(labels, np.int32), tuple(listing.in_words())
    return ImageFiles(files, labels, listing.class_names, words, _checksum_of(files, data_path))


def _checksum_of(files: Sequence[str], data_path: Path) -> int:
    """Of all names in the folder, and of the sizes of some files: others may be 000.jpg, 001.jpg, too."""
    sizes = []
    for file in files[:: 1 + len(files) // _SIZES]:
        with contextlib.suppress(OSError):
            sizes.append(os.path.getsize(file))
    start = len(str(data_path))
    text = "\n".join([*(file[start:] for file in files), *map(str, sizes)])
    return zlib.crc32(text.encode("utf-8", "surrogateescape"))


DATASETS = {
    **{
        layout.name: DataSet(
            partial(_find_binary, layout),
            _each(lambda data_path, split, layout=layout: read_set(layout, data_path, split)),
        )
        for layout in (CIFAR10, CIFAR100)
    },
    "mindrecord": DataSet(
        lambda data_path: 3 * (data_path / INDEX_NAME).is_file(),
        _each(open_mindrecord),
    ),
    "folder": DataSet(_find_folder, _open_folder, _open_folder_tests),
}


def open_splits(
    data_path: str | os.PathLike,
    splits: Sequence[Split] = SPLITS,
    *,
    dataset: str = "auto",
    val_fraction: float = 0.1,
    seed: int = 0,
    **how: bool,
) -> list[Images]:
    """Opens splits of the binary CIFAR-10 or CIFAR-100, of a folder of class folders, or of MindRecord.

    No file of a folder is opened.

    Args:
        data_path: the folder of the data set, or one that holds it under its usual name.
        splits: "test" is what is evaluated: the test files, the folder val or test, or what is held out.
        dataset: a name of DATASETS; "auto" looks.
        val_fraction: share of each class that is held out of a folder without val or test, between 0 and 1.
        seed: says which images are held out.
        how: `skip_unreadable` of `list_folder`.

    Raises:
        UserError: there is no data set, there are several, or it is damaged, for the reason it gives.
    """
    data_path = Path(data_path)
    how |= {"val_fraction": val_fraction, "seed": seed}
    return DATASETS[_name_of(data_path, dataset)].open(data_path, splits, **how)


def open_split(data_path: str | os.PathLike, split: Split, **how) -> Images:
    """One split: see `open_splits`."""
    return open_splits(data_path, (split,), **how)[0]


def open_tests(
    data_path: str | os.PathLike,
    class_names: Sequence[str],
    *,
    dataset: str = "auto",
    **how: Any,
) -> Images:
    """Opens the images to evaluate a network on: of all its classes, or of some. Labels are the network's.

    Args:
        data_path: as `open_splits`; so is dataset.
        class_names: of the network, by label.
        how: of class folders, the settings of `list_tests`.

    Raises:
        UserError: as `open_splits`, or the data has a class that the network does not.
    """
    data_path = Path(data_path)
    data_set = DATASETS[_name_of(data_path, dataset)]
    if data_set.open_tests is None:
        return _by_names(data_set.open(data_path, ("test",))[0], class_names, data_path)
    return data_set.open_tests(data_path, class_names, **how)


def _by_names(source: Images, class_names: Sequence[str], data_path: Path) -> Images:
    """The source with the labels that its classes have among `class_names`."""
    if source.class_names == tuple(class_names):
        return source
    classes = ClassNames(class_names)
    places = [classes.label(name) for name in source.class_names]
    unknown = [name for name, place in zip(source.class_names, places, strict=True) if place is None]
    if unknown:
        raise UserError(
            f"data_path: {data_path} has classes that the network does not have: {some_of(unknown)}; "
            f"give data of its classes, {some_of(class_names)}"
        )
    labels = np.array(places, np.int32)[source.labels]
    return replace(source, labels=labels, class_names=tuple(class_names))


def facts_of(splits: Mapping[Split, Images]) -> dict[str, int]:
    """How many images a data set has: `train`, `test`; and a checksum of their `labels`, in order.

    `listed` tells a folder, before images were left out or chosen, from others; it is 0 for other data.
    """
    labels = {split: np.asarray(source.labels, np.int32) for split, source in splits.items()}
    counts = {split: len(values) for split, values in labels.items()}
    listed = [getattr(source, "listed", 0) for source in splits.values()]
    return counts | {
        "labels": zlib.crc32(b"".join(values.tobytes() for values in labels.values())),
        "listed": zlib.crc32(np.array(listed, np.int64).tobytes()) if any(listed) else 0,
    }


def _name_of(data_path: Path, dataset: str) -> str:
    if dataset != "auto":
        return dataset
    sure = {name: data_set.find(data_path) for name, data_set in DATASETS.items()}
    found = [name for name, value in sure.items() if value and value == max(sure.values())]
    if not found:
        state = "holds no data set" if data_path.is_dir() else f"is not a folder{relative_to(data_path)}"
        raise UserError(
            f"{data_path} {state}: {CIFAR10.folder_name}, {CIFAR100.folder_name} or class folders of images "
            "are needed; give their folder as data_path, or run python -m src.data.prepare cifar10"
        )
    if len(found) > 1:
        raise UserError(f"{data_path} holds several data sets; choose with --dataset {' or '.join(found)}")
    return found[0]
