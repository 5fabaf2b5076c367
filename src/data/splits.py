# SPDX-License-Identifier: Apache-2.0
"""Which pictures of a folder are of which class, which train and which are evaluated.

    FOLDER/<class>/*                            a share of each class is held out
    FOLDER/train/<class>/*, FOLDER/val/...      or valid, dev, test, Training ..., see `names.split_of`
    FOLDER/val/* and a file of labels           as Tiny-ImageNet's val_annotations.txt, in val or beside it

Pictures of a class may lie at any depth. A folder that holds one of these alone is the same as that one.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import relative_to
from .folders import Contents, LeftOut, Reader, counted, number_of, some_of
from .labels import read_labels
from .names import LABEL_FILES, ClassNames, Kind, is_general, nfc, split_folders, split_of

LAYOUT = "FOLDER/<class>/*, or FOLDER/train/<class>/* and FOLDER/val/<class>/* (or test), is needed"

Item = tuple[str, int]  # a picture file and its label


@dataclass(frozen=True)
class Listing:
    """Which picture files belong to which class and split, in the order of classes and names.

    Attributes:
        class_names: the class folders, NFC, sorted as text; or the names that were asked for.
        train: files and labels.
        test: files and labels, of the folder for tests or held out of each class.
        train_root: the folder that holds the training classes; None where only tests were asked for.
        test_root: the folder that holds the test classes, None where they are held out.
        left_out: what was passed over.
        notes: what else is to be known of how the folder was read.
    """

    class_names: tuple[str, ...]
    train: list[Item]
    test: list[Item]
    train_root: Path | None
    test_root: Path | None
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()

    def in_words(self) -> tuple[str, str]:
        """What there is, and what was left out: a line each."""
        parts, classes = [], counted(self.class_names, "class")
        if self.train_root:
            parts.append(f"{number_of(len(self.train), 'training picture')} in {self.train_root}")
        else:
            there = len({label for _, label in self.test})
            classes = f"{there:,} of the network's {number_of(len(self.class_names), 'class')}"
        where = f" in {self.test_root}" if self.test_root else " held out" if self.train_root else ""
        parts.append(f"{number_of(len(self.test), 'test picture')}{where}")
        return "; ".join([f"{', '.join(parts)}, of {classes}", *self.notes]), self.left_out.in_words()


def list_folder(
    root: str | os.PathLike, *, val_fraction: float, seed: int, skip_unreadable: bool = False
) -> Listing:
    """Finds the pictures of a folder to train on and to evaluate, laid out as the module's docstring says.

    A folder for validation goes before one for tests, and one whose classes are not known (Kaggle's test) is
    passed over. Without any, a share of each class is held out: see `held_out`.

    Args:
        root: the folder.
        val_fraction: the share, between 0 and 1.
        seed: says which pictures are held out.
        skip_unreadable: pass over folders that cannot be read, in place of refusing them.

    Raises:
        UserError: the folder is missing or laid out otherwise, there are fewer than two classes with
            pictures, a class has no plain name, a test class is not trained, or a folder cannot be read.
    """
    reading = _Reading(skip_unreadable)
    root, contents = reading.descend(_checked(root))
    splits = split_folders(root, contents.folders)
    train_root = root
    if "train" in splits:
        beside = [name for name in contents.folders if name not in splits.values() and not split_of(name)]
        train_root, within = reading.descend(root / splits["train"], through="train")
        if within.folders:
            reading.take(root, contents)
            reading.unused(beside)
        elif len(splits) == 1 and not all(map(is_general, beside)):  # as airplane, car, train
            splits, train_root = {}, root
            reading.notes.append(f"{root / 'train'} is taken for a class, since pictures lie in it directly")
        else:
            raise UserError(f"{train_root} holds 0 class folders; {LAYOUT}")
    elif splits:
        names = " and ".join(splits.values())
        raise UserError(
            f"{root} holds {names} but no folder train: is this a split, or a class? Move the class folders "
            f"into {root / 'train'}, or rename {names}"
        )
    by_class = reading.classes(train_root)
    class_names = tuple(sorted(by_class))
    test, test_root = reading.tests(root, splits, ClassNames(class_names), trained=True)
    train = [(file, label) for label, name in enumerate(class_names) for file in by_class[name]]
    if test_root is None:
        out = held_out(train, train_root, fraction=val_fraction, seed=seed)
        train, test = ([item for item in train if (item[0] in out) is held] for held in (False, True))
    tested = {label for _, label in test}
    untested = [name for label, name in enumerate(class_names) if label not in tested]
    if untested and test_root:
        reading.notes.append(f"no test picture of {counted(untested, 'class')}")
    elif untested:
        reading.notes.append(f"one picture alone, not held out, of {counted(untested, 'class')}")
    return reading.listing(class_names, train, test, train_root, test_root)


def list_tests(
    root: str | os.PathLike,
    class_names: Sequence[str],
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> Listing:
    """Finds the pictures of a folder to evaluate a network of these classes on: all that `train` is not.

    Args:
        root: laid out as the module's docstring says, with some of the classes at least.
        class_names: of the network, by label.
        val_fraction: where there is no folder for tests, the share that is held out, as `list_folder` does
            for the folder that the network was trained on; None for all pictures.
        seed: says which pictures are held out.
        skip_unreadable: as `list_folder`.

    Returns:
        a listing without training pictures. Pictures in folders that are no class of the network are counted
        as left out.

    Raises:
        UserError: the folder is missing, holds no picture of these classes, or a folder cannot be read.
    """
    reading = _Reading(skip_unreadable)
    classes = ClassNames(class_names)
    root, contents = reading.descend(_checked(root), classes=classes)
    splits = split_folders(root, contents.folders)
    if any(classes.label(name) is not None for name in contents.folders if name not in splits.values()):
        splits = {}
    if splits:
        reading.take(root, contents)
    test, test_root = reading.tests(root, splits, classes, trained=False)
    if test_root is None:
        test_root = root / splits["train"] if "train" in splits else root
        if "train" in splits and val_fraction is None:
            raise UserError(
                f"{root} holds no test pictures whose classes are known; to evaluate all training pictures, "
                f"give {test_root}; {reading.left_out.in_words()}"
            )
        if "train" in splits or not splits:
            test = reading.labelled(test_root, root, classes, trained=False)
        if val_fraction is not None:
            out = held_out(test, test_root, fraction=val_fraction, seed=seed)
            reading.notes.append(f"held out of {test_root}")
            test, test_root = [item for item in test if item[0] in out], None
    if not test:
        raise UserError(
            f"{root} holds no picture to evaluate of the network's classes ({some_of(class_names)}): folders "
            f"of these names, or a file of labels (labels.csv: lines IMAGE,CLASS), are needed; "
            f"{reading.left_out.in_words()}"
        )
    return reading.listing(tuple(class_names), [], test, None, test_root)


def held_out(items: Sequence[Item], root: str | os.PathLike, *, fraction: float, seed: int) -> set[str]:
    """The files that are held out: about `fraction` of each class, one at least and never all.

    A file is held out if the hash of the seed, its class folder and its name there (NFC), as a share of the
    largest hash, is below `fraction`: files that are added or removed move no other. One case is left, in
    small classes: where no hash is below, the smallest one is held out, until a smaller one comes; where all
    are, the largest one is not, until a larger one comes.

    Args:
        items: of any number of classes.
        root: the folder of the class folders.
        fraction: between 0 and 1.
        seed: another seed, another choice.
    """
    start = len(os.path.join(root, ""))
    ranks: dict[int, dict[str, int]] = {}
    for file, label in items:
        digest = hashlib.sha256(os.fsencode(nfc(f"{seed}/{file[start:]}"))).digest()
        ranks.setdefault(label, {})[file] = int.from_bytes(digest)
    found: set[str] = set()
    for of_class in ranks.values():
        if len(of_class) > 1:
            order = sorted(of_class, key=of_class.get)
            below = sum(rank < fraction * 2**256 for rank in of_class.values())
            found.update(order[: min(max(below, 1), len(order) - 1)])
    return found


class _Reading:
    """One folder of classes while it is read: what was left out, and what else is to be said."""

    def __init__(self, skip_unreadable: bool) -> None:
        self.reader = Reader()
        self.left_out = self.reader.left_out
        self.notes: list[str] = []
        self._skip_unreadable = skip_unreadable

    def listing(self, *found: Any) -> Listing:
        """The result, as `Listing` has it, unless a folder could not be read."""
        if not self._skip_unreadable:
            self.left_out.refuse_unreadable(mend=", or pass over what is unreadable: --damaged_images skip")
        return Listing(*found, self.left_out, tuple(self.notes))

    def descend(
        self, folder: Path, *, through: Kind | None = None, classes: ClassNames | None = None
    ) -> tuple[Path, Contents]:
        """Goes down while there is one folder alone that holds folders alone: a data set in a folder.

        What was left out on the way is counted, but not of the last folder.

        Args:
            folder: where to begin.
            through: folders of this split's name are gone through too (train/train); of others never.
            classes: folders of these names are not gone through.
        """
        seen: set[str] = set()
        while True:
            contents = self.reader.look(folder)
            seen.add(os.path.realpath(folder))
            if len(contents.folders) != 1 or contents.files:
                return folder, contents
            below = folder / contents.folders[0]
            is_class = classes is not None and classes.label(below.name) is not None
            if is_class or split_of(below.name) not in (None, through):
                return folder, contents
            within = self.reader.look(below)
            if within.files or not within.folders or os.path.realpath(below) in seen:
                return folder, contents
            self.reader.take(contents)
            folder = below

    def classes(self, root: Path) -> dict[str, list[str]]:
        """The pictures of each class folder, by its name in NFC.

        Raises:
            UserError: there are fewer than two classes with pictures, a name is not plain, or a class folder
                holds splits.
        """
        found: dict[str, list[str]] = {}
        contents, empty = self.reader.look(root), []
        inner: set[frozenset[str]] = set()
        self.take(root, contents)
        for folder in contents.folders:
            if not folder.isprintable() or folder != folder.strip():
                raise UserError(f"the class folder {folder!r} in {root} has no plain name; rename it")
            files, within = self.reader.classed(root / folder)
            self._check_is_class(root, folder, within, contents.folders)
            if files:
                found.setdefault(nfc(folder), []).extend(files)
                inner.add(frozenset(within))
            else:
                empty.append(folder)
        if empty:
            self.left_out.remarks.append(f"without a picture: {counted(empty, 'class folder')}")
        self._check_two(found, contents.folders, root)
        folded: dict[str, list[str]] = {}
        for name in found:
            folded.setdefault(name.casefold(), []).append(name)
        if alike := [" and ".join(names) for names in folded.values() if len(names) > 1]:
            self.notes.append(f"classes that differ in case only: {some_of(alike)}")
        if len(inner) == 1 and len(names := sorted(*inner)) > 1:
            self.notes.append(f"each of them holds folders {some_of(names)}, which are not taken for classes")
        return found

    def _check_is_class(self, root: Path, folder: str, within: set[str], folders: Sequence[str]) -> None:
        """Refuses a data set among class folders, by the names of the folders within it."""
        splits = {kind for name in within if (kind := split_of(name))}
        if "train" in splits and len(splits) > 1:
            raise UserError(
                f"{root / folder} holds folders for {' and '.join(sorted(splits))}: if it is a data set, "
                f"give it as data_path; if a class, move its pictures to {root / 'train' / folder}"
            )
        alike = sorted(within.intersection(folders))
        if len(alike) > 1 or (alike and split_of(folder)):
            raise UserError(
                f"{root / folder} is no class: it holds {some_of(alike)}, as {root} does; move it out of "
                "there"
            )

    def _check_two(self, found: dict[str, list[str]], folders: list[str], root: Path) -> None:
        if len(found) > 1:
            return
        if not folders:
            raise UserError(f"{root} holds 0 class folders; {LAYOUT}; {self.left_out.in_words()}")
        if not found:
            raise UserError(
                f"{root}: none of its folders holds a picture; {LAYOUT}; {self.left_out.in_words()}"
            )
        (name,) = found
        raise UserError(
            f"{root} holds one class alone, {name}, and two are needed; {LAYOUT}. If {name} is the data set, "
            f"give {root / name} as data_path; {self.left_out.in_words()}"
        )

    def take(self, root: Path, contents: Contents) -> None:
        """Counts what was left out of a folder of folders, and the pictures that lie there loose."""
        self.reader.take(contents)
        if count := len(contents.files):
            self.left_out.remarks.append(f"{number_of(count, 'picture')} in {root} outside of class folders")

    def tests(
        self, root: Path, splits: dict[Kind, str], classes: ClassNames, *, trained: bool
    ) -> tuple[list[Item], Path | None]:
        """The pictures to evaluate of a folder for validation, else for tests, and that folder."""
        for kind in ("val", "test"):
            if kind not in splits:
                continue
            folder = root / splits[kind]
            items = self.labelled(folder, root, classes, trained=trained)
            if items:
                if kind == "val" and "test" in splits:
                    self.unused([splits["test"]])
                return items, folder
        return [], None

    def unused(self, names: Sequence[str]) -> None:
        """Says which folders beside the splits are left out."""
        if names:
            self.left_out.remarks.append(f"{counted(names, 'folder')}, beside the splits that are used")

    def labelled(self, folder: Path, root: Path, classes: ClassNames, *, trained: bool) -> list[Item]:
        """The pictures of class folders, or those that a file of labels knows; sorted by label and name.

        Args:
            folder: of the pictures.
            root: a file of labels may lie there too.
            classes: what is a class.
            trained: `classes` are those of a training folder beside it: another class is refused.
        """
        kind = split_of(folder.name)
        where, contents = self.descend(folder, through=kind, classes=classes)
        labels = {name: classes.label(name) for name in contents.folders}
        unknown = [name for name, label in labels.items() if label is None]
        if len(unknown) == len(labels) and (not unknown or (len(unknown) == 1 and is_general(unknown[0]))):
            return self._by_file(folder, where, root, classes)
        self.take(where, contents)
        known = {name: label for name, label in labels.items() if label is not None}
        others = [f"{n} as {classes.names[k]}" for n, k in known.items() if nfc(n) != nfc(classes.names[k])]
        if others:
            self.notes.append(f"in {where}, read by another name: {counted(others, 'class')}")
        items = [
            (file, label) for name, label in known.items() for file in self.reader.pictures(where / name)
        ]
        if known and not items:
            self.left_out.remarks.append(f"{folder}, which holds no picture")
        counts = {name: len(self.reader.pictures(where / name)) for name in unknown}
        strange = [name for name, count in counts.items() if count]
        if strange and not trained:
            what = f"{number_of(sum(counts.values()), 'picture')} of no class of the network"
            self.left_out.remarks.append(f"{what}, in {counted(strange, 'folder')}")
        elif strange:
            raise UserError(
                f"{where / strange[0]} is of a class that the training folder does not have "
                f"({some_of(strange)}); rename or remove it"
            )
        return sorted(items, key=lambda item: (item[1], item[0]))

    def _by_file(self, folder: Path, where: Path, root: Path, classes: ClassNames) -> list[Item]:
        """The pictures without class folders: of the classes that a file of labels says, else none."""
        kind = split_of(folder.name)
        inside = [place / name for place in dict.fromkeys((folder, where)) for name in LABEL_FILES]
        beside = [root / name for name in LABEL_FILES if kind in re.split(r"[_.]", name.lower())]
        path = next((path for path in (*inside, *beside) if path.is_file()), None)
        files = self.reader.pictures(where)
        if path and files:
            self.notes.append(f"classes by {path}")
            self.left_out.counts["extension", path.suffix.lower()] -= 1
            labels = read_labels(path, files, classes.names)
            return sorted(zip(files, labels, strict=True), key=lambda item: (item[1], item[0]))
        what = f"{number_of(len(files), 'picture')} of unknown class in {where} (no class folders or labels)"
        self.left_out.remarks.append(what if files else f"{folder}, which holds no picture")
        return []


def _checked(root: str | os.PathLike) -> Path:
    if not os.path.isdir(root):
        raise UserError(f"{root} is not a folder{relative_to(root)}; {LAYOUT}")
    return Path(root)
