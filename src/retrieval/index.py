# SPDX-License-Identifier: Apache-2.0
"""A folder that knows many pictures by their embeddings: which files they are, and by which model.

A picture takes 2 D bytes of the disk, and as many of memory while it is searched: 100,000 pictures of 2,048
numbers take 0.4 GB. A search compares a query with all of them.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from tqdm import tqdm

from ..common import heartbeat
from ..common.errors import UserError
from ..common.files import checksum, working_in
from ..data.decode import Plan, UnreadableImage, decode_resized
from .store import Picture, Store

Embed = Callable[..., Iterator[tuple[str, np.ndarray]]]  # the method of `Embedder`
Stamp = tuple[int, int]

SAVE_EVERY = 256  # pictures
_QUERIES, _ROWS = 32, 4096  # that are multiplied at once
INDEX, REBUILT = "index.sqlite", "rebuilt.sqlite"


@dataclass(frozen=True)
class PictureIndex:
    """An index that is ready to be searched.

    Attributes:
        identity: what the embeddings depend on, as it was given to `update`.
        reopen: what else the caller wanted to be remembered.
        files: real paths, sorted, one a vector.
        vectors: their embeddings, (n, D) float16.
        missing: files that searches passed over since they are not there.
    """

    identity: dict[str, Any]
    reopen: dict[str, Any]
    files: list[str]
    vectors: np.ndarray
    missing: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Self:
        """Opens an index that `update` has written.

        Raises:
            UserError: there is none, it is damaged, or it holds no picture.
        """
        path = Path(folder) / INDEX
        if not path.is_file():
            raise UserError(f"{folder} holds no index; make one by the command build")
        files, vectors = [], np.empty((0, 0), np.float16)
        with Store(path) as store, store.transaction():
            identity, reopen, count = store.state()
            for _, picture in store.pictures():
                if picture.vector:
                    if not files:
                        vectors = np.empty((count, len(picture.vector) // 2), np.float16)
                    vectors[len(files)] = np.frombuffer(picture.vector, np.float16)
                    files.append(os.fsdecode(picture.path))
        if not files:
            raise UserError(f"{folder}: the index is empty; build it with readable pictures")
        order = sorted(range(len(files)), key=files.__getitem__)
        return cls(identity, reopen, [files[row] for row in order], vectors[order])

    def search(self, embeddings: np.ndarray, top: int) -> list[list[tuple[str, float]]]:
        """The `top` most similar pictures of each embedding, (Q, D) of length 1, with their cosines.

        The most similar comes first; of equals the first path. Files that are not there are passed over.
        """

        @functools.cache
        def is_there(file: str) -> bool:
            there = os.path.exists(file)
            if not there:
                self.missing.add(file)
            return there

        def best(similarities: np.ndarray) -> Iterator[tuple[str, float]]:
            for row in np.argsort(-similarities, kind="stable"):
                if is_there(self.files[row]):
                    yield self.files[row], float(similarities[row])

        found = []
        for start in range(0, len(embeddings), _QUERIES):
            queries = np.asarray(embeddings[start : start + _QUERIES], np.float32)
            blocks = (self.vectors[row : row + _ROWS] for row in range(0, len(self.vectors), _ROWS))
            similarities = np.concatenate([queries @ _as_float32(block).T for block in blocks], axis=1)
            # Rounded, equal vectors are equally similar wherever they stand. A vector that was rounded to
            # float16 can be a little longer than 1.
            similarities = np.clip(np.round(similarities, 6), -1, 1)
            found += [list(islice(best(row), top)) for row in similarities]
        return found


def _as_float32(vectors: np.ndarray) -> np.ndarray:
    """float16 -> float32 in a tenth of numpy's time."""
    return cv2.convertFp16(np.ascontiguousarray(vectors).view(np.int16))


def update(
    folder: str | os.PathLike,
    pictures: Mapping[str, Sequence[str]],
    *,
    embed: Embed,
    identity: Mapping[str, Any],
    reopen: Mapping[str, Any],
    only: bool = False,
    prune: bool = False,
    rebuild: bool = False,
    save_every: int = SAVE_EVERY,
    damaged: Callable[[UnreadableImage], None] = lambda error: None,
) -> dict[str, int]:
    """Brings an index up to date with the pictures of some folders.

    Those that are new or have changed are embedded, those that are gone are dropped. A file that was moved or
    copied is known by its bytes and not embedded again. Several names of one file (links) are one picture.
    A search meanwhile sees what is done so far.

    Args:
        folder: of the index; made if need be.
        pictures: the files that are in each folder.
        embed: see `Embedder.embed`.
        identity: what the embeddings depend on, of JSON's types; an index of another identity is refused.
        reopen: what else to remember, of JSON's types.
        only: drop what is not under these folders too; otherwise it stays as it is.
        prune: drop what is gone even where a folder is empty, or has lost more than half of its pictures.
        rebuild: start anew, whatever the index is. It stays as it is until the new one is complete.
        save_every: after how many pictures the work is saved.
        damaged: takes each picture that cannot be read. One that is damaged is not tried again until it
            changes; one that the system could not read is.

    Returns:
        `files` in the index, of them `added`, `changed`, `moved` and `unchanged`; `removed`; `skipped`, all
        that cannot be read.

    Raises:
        UserError: there is no picture, or too many are gone; the folder cannot be written, holds other
            things, or an index that is damaged or of another identity.
    """
    folder, roots = Path(folder), {os.path.realpath(root): files for root, files in pictures.items()}
    identity, reopen = (json.loads(json.dumps(dict(value))) for value in (identity, reopen))
    with working_in(folder):
        with _opened(folder, identity, rebuild) as store:
            built, remembered, _ = store.state()
            _check_identity(folder, built, identity)
            rows, before = {}, {}
            for row, picture in store.pictures():
                file = os.fsdecode(picture.path)
                rows[file], before[file] = row, picture._replace(vector=b"")
            others = {file for file in before if not any(_is_under(file, root) for root in roots)}
            stay = set() if only else others
            listed, gone, aliases = _look({f for files in roots.values() for f in files}, before, stay)
            new = {f: stamp for f, stamp in listed.items() if f not in before or before[f].stamp != stamp}
            sources = _known_by_bytes(new, before)
            arrived = {before[source].content for f, source in sources.items() if f not in before}
            moved = {file for file in gone if before[file].content in arrived}
            _check_losses(roots, before, set() if prune else gone - moved)
            if not listed and not before:
                raise UserError(f"{', '.join(pictures)}: no picture is there; name a folder with pictures")
            # A file in a folder that cannot be read any more is neither listed nor gone, and stays.
            drop = moved | aliases | (gone | others) - stay - listed.keys()

            now = {f: before[g]._replace(path=os.fsencode(f), mtime_ns=new[f][1]) for f, g in sources.items()}
            if now or drop or reopen != remembered:
                put = (p._replace(vector=store.vector(rows[sources[f]])) for f, p in now.items())
                store.write(put, [rows[f] for f in drop.union(now) if f in rows], reopen)

            def save(some: Mapping[str, Picture]) -> None:
                store.write(some.values(), [rows[f] for f in some if f in rows], reopen)
                now.update(some)

            todo = {f: stamp for f, stamp in new.items() if f not in sources}
            _embed(todo, embed, save, save_every, damaged)
        if rebuild:
            _put_in_place(folder)
        else:  # one that was begun and given up
            _remove(folder / REBUILT)
    after = {file: picture for file, picture in before.items() if file not in drop} | now
    return _facts(before, after, moved, unread=len(todo.keys() - now.keys()))


def _opened(folder: Path, identity: Mapping[str, Any], rebuild: bool) -> Store:
    """The index that a build works on: the one that stands, or beside it the one that will replace it."""
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith((INDEX, REBUILT, ".quartet-")))
    if others and not (folder / INDEX).exists():
        raise UserError(f"{folder} holds other files ({others[0]}) and no index; choose another --index")
    path = folder / (REBUILT if rebuild else INDEX)
    if rebuild:
        with suppress(UserError), Store(path) as begun:  # by a build that was killed
            if begun.state()[0] == identity and all(begun.pictures()):
                return Store(path)
    elif path.exists():
        return Store(path)
    _remove(path)
    return Store(path, new=identity)


def _put_in_place(folder: Path) -> None:
    """Renames the rebuilt index over the old one, whose journal goes first: SQLite applies it by name."""
    with suppress(UserError), Store(folder / INDEX) as old:
        old.state()  # takes back what a killed build has not committed, and removes its journal
    Path(f"{folder / INDEX}-journal").unlink(missing_ok=True)
    (folder / REBUILT).replace(folder / INDEX)


def _remove(path: Path) -> None:
    for name in (path, f"{path}-journal"):
        Path(name).unlink(missing_ok=True)


def _check_identity(folder: Path, built: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name in [*asked, *built]:
        if built.get(name) != asked.get(name):
            raise UserError(
                f"{folder} was built with {name} {built.get(name)}, not {asked.get(name)}; "
                "choose another --index, or start this one anew with --rebuild"
            )


def _look(
    files: set[str], before: Mapping[str, Picture], others: set[str]
) -> tuple[dict[str, Stamp], set[str], set[str]]:
    """The stamps of files by their real paths; which files of the index are gone, and which are second names.

    Of several names of one file (hard links) one is listed that the index knows, or the first; none where one
    of `others` is a name of it, which stay in the index.
    """
    real_folder = functools.cache(os.path.realpath)

    def real(file: str) -> str:
        if os.path.islink(file) and os.path.exists(file):
            return os.path.realpath(file)
        folder, name = os.path.split(file)
        return os.path.join(real_folder(folder), name)

    paths = {real(file) for file in files}
    listed, gone, taken, unlisted = {}, set(), set(), {}
    for path in sorted(before.keys() | paths, key=lambda path: (path not in before, path)):
        heartbeat.progress()
        stamp, name = (-1, -1), path
        try:
            status = os.stat(path)
            stamp, name = (status.st_size, status.st_mtime_ns), (status.st_dev, status.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            gone.add(path)
        except OSError:  # in a folder that may not be read; for a listed file, reading it will say why
            pass
        if path in paths and name not in taken:
            listed[path] = stamp
        if path in paths or path in others:
            taken.add(name)
        else:
            unlisted[path] = name
    aliases = {path for path, name in unlisted.items() if name in taken}
    return dict(sorted(listed.items())), gone & before.keys() - listed.keys(), aliases


def _known_by_bytes(new: Mapping[str, Stamp], before: Mapping[str, Picture]) -> dict[str, str]:
    """The files whose bytes the index knows, each with a file that it knows them from."""
    sizes, files = {p.size for p in before.values()}, {p.content: file for file, p in before.items()}
    contents = {}
    for file in tqdm([file for file, (size, _) in new.items() if size in sizes], disable=None):
        heartbeat.progress()
        with suppress(OSError):
            contents[file] = _content(file)
    return {file: files[content] for file, content in contents.items() if content in files}


def _check_losses(roots: Mapping[str, Sequence[str]], before: Mapping[str, Picture], lost: set[str]) -> None:
    """Refuses to drop most pictures of a folder, or those of one that is empty: its drive may be missing."""
    for root, files in roots.items():
        own = {file for file, picture in before.items() if not picture.reason and _is_under(file, root)}
        if not own and not os.path.isdir(root):
            raise UserError(f"{root}: no such folder; name existing folders of pictures")
        count = len(own & lost)
        if count and (not files or 2 * count > len(own)):
            raise UserError(
                f"{root}: {count:,} of the {len(own):,} pictures that the index has from there are gone, and "
                "none is dropped; mount or restore the folder, or drop them with --prune"
            )
        for folder in sorted({_nearest_folder(file) for file in own & lost}):
            if not os.listdir(folder):
                raise UserError(
                    f"{folder} is empty, and the index has pictures from there; none is dropped; mount or "
                    "restore it, or drop them with --prune"
                )


def _nearest_folder(file: str) -> str:
    """The folder of a file that is gone, or the lowest one above it that is there."""
    while not os.path.isdir(file):
        file = os.path.dirname(file)
    return file


def _is_under(file: str, root: str) -> bool:
    return file.startswith(os.path.join(root, ""))


def _content(file: str) -> bytes:
    return bytes.fromhex(checksum(file))


def _embed(
    todo: Mapping[str, Stamp],
    embed: Embed,
    save: Callable[[Mapping[str, Picture]], None],
    save_every: int,
    damaged: Callable[[UnreadableImage], None],
) -> None:
    """Embeds files and saves some at a time; when it is broken off, what is done is saved too."""
    contents: dict[str, bytes] = {}
    done: dict[str, Picture] = {}

    def read(file: str, plan: Plan) -> np.ndarray:
        with suppress(OSError):
            contents[file] = _content(file)
        return decode_resized(file, plan)

    def keep(file: str, *, reason: str = "", vector: bytes = b"") -> None:
        if content := contents.pop(file, None):
            why = reason.encode("utf-8", "replace")
            done[file] = Picture(os.fsencode(file), *todo[file], content, why, vector)

    def skip(file: str, error: UnreadableImage) -> None:
        if getattr(error.__cause__, "errno", None) is None:
            keep(file, reason=error.reason)
        damaged(error)

    pictures = ((file, functools.partial(read, file)) for file in todo)
    try:
        for file, vector in tqdm(embed(pictures, skip=skip), total=len(todo), disable=None):
            keep(file, vector=vector.astype(np.float16).tobytes())
            if len(done) >= save_every:
                save(done)
                done = {}
    finally:
        if done:
            save(done)


def _facts(
    before: Mapping[str, Picture], after: Mapping[str, Picture], moved: set[str], *, unread: int
) -> dict[str, int]:
    """See `update`; pictures without a vector count as skipped alone."""
    damaged = sum(bool(picture.reason) for picture in after.values())
    was, now = ({(file, p.content) for file, p in all_.items() if not p.reason} for all_ in (before, after))
    old, new = dict(was), dict(now)
    arrived = {content for file, content in was if file in moved}
    moved_here = {file for file, content in now if file not in old and content in arrived}
    return {
        "files": len(new),
        "added": len(new.keys() - old.keys() - moved_here),
        "changed": len(new.keys() & old.keys()) - len(was & now),
        "moved": len(moved_here),
        "unchanged": len(was & now),
        "removed": len(old.keys() - new.keys() - moved),
        "skipped": damaged + unread,
    }
