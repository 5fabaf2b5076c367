"""Which image files there are: in a folder to any depth, and in class folders with their splits."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..common import heartbeat
from ..common.errors import UserError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
LAYOUT = "FOLDER/<class>/*, or FOLDER/train/<class>/* and FOLDER/val/<class>/* (or test), is needed"

Item = tuple[str, int]  # an image file and its label


@dataclass(frozen=True)
class Listing:
    """Which image files belong to which class and split, in the order of classes and names.

    Attributes:
        class_names: the class folders, sorted.
        train: files and labels.
        test: files and labels, of the folder for tests or held out of each class.
        train_root: the folder that holds the training classes.
        test_root: the folder that holds the test classes, None where they are held out.
    """

    class_names: tuple[str, ...]
    train: list[Item]
    test: list[Item]
    train_root: Path
    test_root: Path | None


def list_folder(root: str | os.PathLike, *, test_fraction: float, seed: int) -> Listing:
    """Finds the image files of `root/<class>`, or of `root/train/<class>` and `root/val|test/<class>`.

    A class folder is searched to any depth. `val` goes before `test`, which often has no labels. Without
    either, `test_fraction` of each class is held out, one image at least and never all. Which ones follows
    from a hash of the seed and the file's name: images that are added do not move the others.

    Raises:
        UserError: the folder is missing or laid out otherwise, a class folder has no image or no plain name,
            or a test class is not trained.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; {LAYOUT}")
    names = class_folders(root)
    test_root = next((root / name for name in ("val", "test") if name in names), None)
    if "train" in names and (test_root or names == ["train"]):
        train_root = root / "train"
    else:
        train_root, test_root = root, None

    class_names = class_folders(train_root)
    if not class_names:
        raise UserError(f"{train_root} holds 0 class folders; {LAYOUT}")
    for name in class_names:
        if not name.isprintable() or name != name.strip():
            raise UserError(f"the class folder {name!r} in {train_root} has no plain name; rename it")
    train, test = [], []
    for label, name in enumerate(class_names):
        files = _images_of_class(train_root, name)
        held_out = set() if test_root else _held_out(files, train_root / name, test_fraction, seed)
        train += [(file, label) for file in files if file not in held_out]
        test += [(file, label) for file in files if file in held_out]
    if test_root:
        labels = {name: label for label, name in enumerate(class_names)}
        for name in class_folders(test_root):
            if name not in labels:
                raise UserError(
                    f"{test_root / name} is of a class that {train_root} does not have; rename or remove it"
                )
            test += [(file, labels[name]) for file in _images_of_class(test_root, name)]
    return Listing(tuple(class_names), train, test, train_root, test_root)


def class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    _, folders, _ = next(os.walk(root, onerror=_refuse))
    return sorted(name for name in folders if name[0] != ".")


def images_under(folder: str | os.PathLike) -> list[str]:
    """The files with the extension of an image in a folder, to any depth, sorted.

    Hidden files and folders are passed over, and what only has the name of an image: a pipe would be waited
    for. Links are followed, each folder once; a link that leads nowhere is listed, so that it is reported.

    Raises:
        UserError: a folder cannot be read.
    """
    found, seen, left = [], set(), [os.fspath(folder)]
    while left:
        parent = left.pop()
        real = os.path.realpath(parent)
        if real in seen:
            continue
        seen.add(real)
        heartbeat.progress()
        folders = []
        for entry in _entries(parent):
            if _leads_to(entry.is_dir):
                folders.append(entry.path)
            elif _is_image(entry):
                found.append(entry.path)
        left += sorted(folders, reverse=True)
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"cannot read the folder {error.filename} ({error.strerror}); check its permissions")


def _entries(folder: str) -> list[os.DirEntry]:
    """What is in a folder, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        _refuse(error)


def _is_image(entry: os.DirEntry) -> bool:
    if os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
        return False
    # What the folder says of its entries saves asking the disk for each of a million files.
    return _leads_to(entry.is_file) or not os.path.exists(entry.path)


def _leads_to(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def _images_of_class(root: Path, name: str) -> list[str]:
    files = images_under(root / name)
    if not files:
        raise UserError(
            f"{root / name} holds no image: put images of the class {name} there (.jpg, .png ...), "
            "or remove the folder"
        )
    return files


def _held_out(files: Sequence[str], folder: Path, fraction: float, seed: int) -> set[str]:
    """The share of a class's files whose hashes are smallest."""

    def rank(file: str) -> bytes:
        return hashlib.sha256(os.fsencode(f"{seed}/{os.path.relpath(file, folder.parent)}")).digest()

    count = min(max(round(fraction * len(files)), 1), len(files) - 1)
    return set(sorted(files, key=rank)[:count])
