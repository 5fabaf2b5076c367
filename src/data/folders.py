# SPDX-License-Identifier: Apache-2.0
"""Which pictures a folder holds, to any depth, and what in it was left out, with the reason.

Every command that takes a folder reads it here, and shows both lines of `in_words`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from ..common import heartbeat
from ..common.errors import UserError
from ..common.files import relative_to
from .names import HEAD_BYTES, is_leftover, looks_like_picture, picture_extensions, to_convert

Why = Literal["extension", "leftover", "hidden", "special", "circle", "nowhere", "unreadable"]

_SHOWN = 5  # names or extensions in a line


@dataclass
class LeftOut:
    """What was passed over.

    Attributes:
        counts: how many files and folders, by the reason and the name: of files that are no pictures their
            extension, else the name or path.
        remarks: what else a folder of classes leaves out, a sentence each.
    """

    counts: Counter[tuple[Why, str]] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    @property
    def unreadable(self) -> list[str]:
        """`PATH (reason)` of each folder that the system did not let us read."""
        return self._names("unreadable")

    def add(self, other: "LeftOut") -> None:
        """Adds what was left out elsewhere."""
        self.counts.update(other.counts)
        self.remarks += other.remarks

    def refuse_unreadable(self, mend: str = "") -> None:
        """Raises a UserError if a folder could not be read, which makes the exit code 2."""
        if names := self.unreadable:
            raise UserError(f"cannot read {counted(names, 'folder')}; check the permissions{mend}")

    def in_words(self) -> str:
        """One line, which begins with `left out: `."""
        parts = [f"cannot be read: {counted(names, 'folder')}"] if (names := self.unreadable) else []
        parts += self._extensions_in_words()
        if count := self._count("leftover"):
            parts.append(
                f"{number_of(count, 'leftover')} of other programs ({some_of(self._names('leftover'))})"
            )
        if names := self._names("nowhere"):
            parts.append(f"{counted(names, 'link')} to nowhere")
        for why, title in (
            ("hidden", "hidden"),
            ("special", "no plain files (pipes, devices)"),
            ("circle", "links to a folder that they lie in or beside"),
        ):
            if count := self._count(why):
                parts.append(f"{count:,} {title}")
        return f"left out: {'; '.join([*parts, *self.remarks]) or 'nothing'}"

    def _names(self, why: Why) -> list[str]:
        return [name for key, name in self.counts if key == why]

    def _count(self, why: Why) -> int:
        return sum(count for key, count in self.counts.items() if key[0] == why)

    def _extensions_in_words(self) -> list[str]:
        found = Counter({name: n for (why, name), n in self.counts.items() if why == "extension" and n})
        if not found:
            return []
        shown = found.most_common(_SHOWN)
        parts = [f"{count:,} {name or 'without an extension'}" for name, count in shown]
        if rest := found.total() - sum(count for _, count in shown):
            parts.append(f"{rest:,} others")
        mend = [name for name in found if to_convert(name)]
        text = f"files that are no pictures: {', '.join(parts)}"
        return [f"{text} (convert {', '.join(mend[:_SHOWN])} to JPEG or PNG)" if mend else text]


@dataclass(frozen=True)
class Found:
    """The pictures of some folders.

    Attributes:
        where: the folders and files that were asked for.
        files: paths, each once: those of a folder sorted as text, else in the order that was asked for.
        left_out: of the folders.
    """

    where: tuple[str, ...]
    files: list[str]
    left_out: LeftOut

    def in_words(self) -> tuple[str, str]:
        """What was found, and what was left out: a line each."""
        return f"{number_of(len(self.files), 'picture')} in {some_of(self.where)}", self.left_out.in_words()


@dataclass
class Contents:
    """What lies directly in a folder: names, sorted; `links` are those of `folders` that are links."""

    folders: list[str]
    files: list[str]
    links: set[str]
    left_out: LeftOut


class Reader:
    """Reads folders: one question to the system a folder, and one for each link.

    Attributes:
        left_out: all that `pictures` and `take` left out.
    """

    def __init__(self) -> None:
        self.left_out = LeftOut()
        self._extensions = picture_extensions()

    def look(self, folder: str | os.PathLike) -> Contents:
        """What is in a folder; it counts as left out only by `take`.

        Raises:
            UserError: the folder cannot be read.
        """
        try:
            return self._look(os.fspath(folder))
        except OSError as error:
            raise UserError(
                f"cannot read the folder {error.filename}{relative_to(folder)} ({error.strerror}); "
                "check its permissions"
            ) from error

    def take(self, contents: Contents) -> None:
        """Counts what `look` left out."""
        self.left_out.add(contents.left_out)

    def pictures(self, folder: str | os.PathLike) -> list[str]:
        """The picture files in a folder to any depth, sorted as text.

        Links are followed, each folder once; a link that leads nowhere is listed, so that it is reported. A
        folder that cannot be read is passed over and counted.
        """
        return self.classed(folder)[0]

    def classed(self, folder: str | os.PathLike) -> tuple[list[str], set[str]]:
        """`pictures`, and the names of the folders directly in it."""
        found: list[str] = []
        folders: set[str] = set()
        top = os.fspath(folder)
        left = [(top, os.path.realpath(top))]
        seen = set()
        while left:
            parent, real = left.pop()
            if real in seen:
                continue
            seen.add(real)
            heartbeat.progress()
            try:
                contents = self._look(parent)
            except OSError as error:
                self.left_out.counts["unreadable", f"{parent} ({error.strerror})"] += 1
                continue
            self.take(contents)
            found += [os.path.join(parent, name) for name in contents.files]
            if parent == top:
                folders = {*contents.folders}
            for name in reversed(contents.folders):
                path = os.path.join(parent, name)
                is_link = name in contents.links
                left.append((path, os.path.realpath(path) if is_link else os.path.join(real, name)))
        return sorted(found), folders

    def _look(self, folder: str) -> Contents:
        contents = Contents([], [], set(), LeftOut())
        with os.scandir(folder) as entries:
            for entry in entries:
                self._sort(entry, contents)
        contents.folders.sort()
        contents.files.sort()
        return contents

    def _sort(self, entry: os.DirEntry, contents: Contents) -> None:
        """Puts an entry where it belongs.

        What the folder says of its entries saves asking the disk for each of a million files.
        """
        left_out = contents.left_out.counts
        if entry.name[0] == ".":
            left_out["hidden", ""] += 1
        elif is_leftover(entry.name):
            left_out["leftover", entry.name] += 1
        elif _leads_to(entry.is_dir):
            if not entry.is_symlink():
                contents.folders.append(entry.name)
            elif _leads_back(entry.path):
                left_out["circle", entry.path] += 1
            else:
                contents.folders.append(entry.name)
                contents.links.add(entry.name)
        elif not _leads_to(entry.is_file) and os.path.exists(entry.path):
            left_out["special", entry.name] += 1
        elif self._is_picture(entry):
            contents.files.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left_out["nowhere", entry.path] += 1
        else:
            left_out["extension", _extension(entry.name)] += 1

    def _is_picture(self, entry: os.DirEntry) -> bool:
        if extension := _extension(entry.name):
            return extension in self._extensions
        try:
            with open(entry.path, "rb", buffering=0) as file:
                return looks_like_picture(file.read(HEAD_BYTES))
        except OSError:
            return False


def find_in(folder: str | os.PathLike) -> Found:
    """The pictures in a folder to any depth, perhaps none: see `Reader.pictures`.

    Raises:
        UserError: the folder itself cannot be read.
    """
    reader = Reader()
    reader.look(folder)
    return Found((os.fspath(folder),), reader.pictures(folder), reader.left_out)


def find_images(paths: Iterable[str | os.PathLike]) -> Found:
    """The pictures that files and folders mean, in their order; those of a folder sorted.

    A file is taken whatever its extension, since it was named on purpose.

    Raises:
        UserError: no path is given, one does not exist, or a folder holds no picture.
    """
    where = tuple(os.fspath(path) for path in paths)
    if not where:
        raise UserError("no image is named: give image files or folders")
    files: dict[str, None] = {}  # each once, in their order
    left_out = LeftOut()
    for path in where:
        if os.path.isdir(path):
            found = find_in(path)
            if not found.files:
                raise UserError(f"{path}: no image in this folder; {found.left_out.in_words()}")
            files |= dict.fromkeys(found.files)
            left_out.add(found.left_out)
        elif os.path.isfile(path):
            files[path] = None
        else:
            raise UserError(f"{path}: no such image file or folder{relative_to(path)}")
    return Found(where, list(files), left_out)


def class_folders(folder: str | os.PathLike) -> list[str]:
    """The names of the folders in a folder that may be classes, sorted.

    Raises:
        UserError: the folder cannot be read.
    """
    return Reader().look(folder).folders


def printable(name: str) -> str:
    """As it is if a terminal can print it, otherwise with escapes."""
    return name if name.isprintable() else repr(name)


def some_of(names: Iterable[str], *, most: int = _SHOWN) -> str:
    """The first names."""
    first = [printable(name) for name in islice(names, most + 1)]
    return ", ".join(first[:most]) + (" ..." if len(first) > most else "")


def number_of(count: int, word: str) -> str:
    """`1 class`, `2 classes`."""
    several = f"{word[:-1]}ies" if word[-1] == "y" else f"{word}{'es' if word[-1] == 's' else 's'}"
    return f"{count:,} {word if count == 1 else several}"


def counted(names: Sequence[str], word: str) -> str:
    """`2 classes (a, b)`."""
    return f"{number_of(len(names), word)} ({some_of(names)})"


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower().rstrip()


def _leads_to(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def _leads_back(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, or beside, and that is read anyway."""
    place, target = os.path.realpath(os.path.dirname(link)), os.path.realpath(link)
    parent, name = os.path.split(target)
    return os.path.commonpath((place, target)) == target or (parent == place and name[0] != ".")
