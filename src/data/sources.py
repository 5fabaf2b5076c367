"""Where images come from: finding a data set, and images in class folders, read when they are asked for.

A source has `labels` (N,) int32, `class_names`, `len()`, `name(index)` -> its file or number, `read(index)`
-> (H, W, 3) uint8 RGB, C-contiguous, `read_crop(index, choose, least)` -> a box of it, as
`decode.decode_crop`, and `take(indices)` -> a source of those images. `ImageSet` (in memory), `ImageFiles`
and `MindRecordImages` are such.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ..common import heartbeat
from ..common.errors import UserError
from ..common.files import relative_to
from .binary import CIFAR10, ImageSet, Layout, Split, find_python_version, find_set, read_set
from .cifar100 import CIFAR100
from .decode import UnreadableImage, decode, decode_crop, decode_resized, fault
from .folders import class_folders
from .mindrecord import INDEX_NAME, MindRecordImages, open_mindrecord
from .resize import ChooseBox, Plan
from .splits import Item, Listing, list_folder

log = logging.getLogger("quartet")

_SHOWN = 10  # damaged files that are named
_THREADS = 8  # that look at files: on a network each look waits, on a disk they cost nothing
_CHUNK = 256  # files
_WAITS = (0.5, 1.0, 2.0)  # seconds before a file is read again that could not be read


@dataclass(frozen=True)
class ImageFiles:
    """One split of a data set in image files, decoded when they are read. Threads may share it.

    Attributes:
        files: the path of each image.
        labels: (N,) int32, each below the number of classes.
        class_names: the name of each class, by label.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The file of an image."""
        return self.files[index]

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, C-contiguous.

        Raises:
            UserError: the file cannot be decoded, although its header is sound.
        """
        return _patiently(lambda: decode(self.files[index]))

    def read_resized(self, index: int, plan: Plan) -> np.ndarray:
        """(h, w, 3) uint8 RGB, see `decode_resized`. Raises UserError as `read` does."""
        return _patiently(lambda: decode_resized(self.files[index], plan))

    def read_crop(self, index: int, choose: ChooseBox, least: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB, see `decode_crop`. Raises UserError as `read` does."""
        return _patiently(lambda: decode_crop(self.files[index], choose, least))

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageFiles":
        """The images of `indices`, in their order."""
        files = tuple(self.files[index] for index in indices)
        return ImageFiles(files, self.labels[np.asarray(indices, np.int64)], self.class_names)


def _patiently(read: Callable[[], np.ndarray]) -> np.ndarray:
    """Reads again where the system failed to: a file that a network mount lost for seconds ends no run.

    Damage, which decoding finds, is no such failure.
    """
    for seconds in _WAITS:
        try:
            return read()
        except UnreadableImage as error:
            if getattr(error.__cause__, "errno", None) is None:
                raise
            log.warning("%s; trying again in %g s", error, seconds)
            time.sleep(seconds)
    return read()


def _find_binary(layout: Layout, data_path: Path) -> int:
    if find_set(layout, data_path):
        return 3
    return 2 if find_python_version(layout, data_path) else 0  # reading it says what is needed


def _find_folder(data_path: Path) -> int:
    folders = class_folders(data_path) if data_path.is_dir() else []
    return 3 if "train" in folders else bool(folders)


def _open_folder(
    data_path: Path, split: Split, *, val_fraction: float, seed: int, damaged: Literal["fail", "skip"]
) -> ImageFiles:
    listing = list_folder(data_path, val_fraction=val_fraction, seed=seed, skip_unreadable=damaged == "skip")
    if listing.test_root:
        _check_every_class_is_tested(listing)
    return _open_files(listing, split, skip=damaged == "skip")


@dataclass(frozen=True)
class DataSet:
    """One choice of `dataset`.

    Attributes:
        find: how surely a folder holds it: 3 it does, 2 in a form to convert, 1 perhaps, 0 it doesn't.
        open: (data_path, split, settings of `open_split`) -> the split.
    """

    find: Callable[[Path], int]
    open: Callable[..., ImageSet | ImageFiles | MindRecordImages]


DATASETS = {
    **{
        layout.name: DataSet(
            partial(_find_binary, layout),
            lambda data_path, split, layout=layout, **_: read_set(layout, data_path, split),
        )
        for layout in (CIFAR10, CIFAR100)
    },
    "mindrecord": DataSet(
        lambda data_path: 3 * (data_path / INDEX_NAME).is_file(),
        lambda data_path, split, **_: open_mindrecord(data_path, split),
    ),
    "folder": DataSet(_find_folder, _open_folder),
}


def open_split(
    data_path: str | os.PathLike,
    split: Split,
    *,
    dataset: str = "auto",
    val_fraction: float = 0.1,
    seed: int = 0,
    damaged: Literal["fail", "skip"] = "fail",
) -> ImageSet | ImageFiles | MindRecordImages:
    """Opens one split of the binary CIFAR-10 or CIFAR-100, of a folder of class folders, or of MindRecord.

    Every file of a folder is looked at first, without decoding it (`fault`).

    Args:
        data_path: the folder of the data set, or one that holds it under its usual name.
        split: "test" is what is evaluated: the test files, the folder val or test, or what is held out.
        dataset: a name of DATASETS; "auto" looks.
        val_fraction: share of each class that is held out of a folder without val or test, between 0 and 1.
        seed: says which images are held out.
        damaged: refuse a folder with damaged files, or leave them out and name them in the log.

    Raises:
        UserError: there is no data set, there are several, or it is damaged, for the reason it gives.
    """
    data_path = Path(data_path)
    name = _detect(data_path) if dataset == "auto" else dataset
    return DATASETS[name].open(data_path, split, val_fraction=val_fraction, seed=seed, damaged=damaged)


def _detect(data_path: Path) -> str:
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


def _check_every_class_is_tested(listing: Listing) -> None:
    tested = {label for _, label in listing.test}
    missing = [name for label, name in enumerate(listing.class_names) if label not in tested]
    if missing:
        raise UserError(
            f"{listing.test_root} lacks {len(missing)} of the classes of {listing.train_root}: "
            f"{', '.join(missing[:_SHOWN])}{' ...' if len(missing) > _SHOWN else ''}; "
            "add images of them there, or remove them from the training folder"
        )


def _open_files(listing: Listing, split: Split, *, skip: bool) -> ImageFiles:
    items: list[Item] = listing.train if split == "train" else listing.test
    root = listing.train_root if split == "train" or not listing.test_root else listing.test_root
    if not items:
        raise UserError(f"{root}: no image can be held out, each class has one; add images, or a folder val")
    faults = _look([file for file, _ in items], root)
    if faults:
        _report(faults, len(items), root, skip=skip)
    whole = [item for item in items if item[0] not in faults]
    left = {label for _, label in whole}
    for label in sorted({label for _, label in items} - left):
        raise UserError(
            f"{root / listing.class_names[label]}: every image of this class is damaged; "
            "replace them, or remove the folder"
        )
    labels = np.array([label for _, label in whole], np.int32)
    return ImageFiles(tuple(file for file, _ in whole), labels, listing.class_names)


def _look(files: Sequence[str], root: Path) -> dict[str, str]:
    """The faults of the files that have one."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        results = pool.map(lambda chunk: [(file, fault(file)) for file in chunk], chunks)
        faults = {}
        for chunk in tqdm(results, desc=f"checking {root}", total=len(chunks), disable=None):
            heartbeat.progress()
            faults |= {file: reason for file, reason in chunk if reason}
        return faults


def _report(faults: dict[str, str], count: int, root: Path, *, skip: bool) -> None:
    names = [os.path.relpath(file, root) for file in faults]
    names = [name if name.isprintable() else repr(name) for name in names]
    lines = [f"{name} ({reason})" for name, reason in zip(names, faults.values())]
    summary = f"{root}: {len(faults):,} of {count:,} images are damaged"
    first = ", ".join(lines[:_SHOWN]) + (" ..." if len(lines) > _SHOWN else "")
    if not skip:
        raise UserError(f"{summary}: {first}; replace or remove them, or use --damaged_images skip")
    log.warning("%s and left out: %s", summary, first)
    for line in lines:
        log.info("damaged: %s", line)
