"""A folder that knows many pictures by their embeddings: which files they are, and by which model.

A build that changes something writes the vectors anew, in the order of the files, and trains the codes anew:
for 100,000 pictures that takes seconds, where their embedding took hours. A picture takes 2 D bytes on the
disk, twice that while a build ends. A build holds a block of vectors in memory, a search the codes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from tqdm import tqdm

from ..common.errors import UserError
from ..common.lock import FOLDER_LOCK, locked
from ..data.decode import UnreadableImage, decode
from ..data.folders import find_in
from .index_files import begin, known_files, merge, open_vectors, parts_of, read_state, save_part
from .vectors import VectorIndex

Embed = Callable[..., Iterator[tuple[str, np.ndarray]]]  # the method of `Embedder`

SAVE_EVERY = 256  # pictures, the most that a killed build loses
UNREAD = (-1, -1)  # the stamp of a file that the system could not read


class Neighbour(NamedTuple):
    """A picture of the index, how similar it is (cosine), and whether the file is there no longer."""

    file: str
    similarity: float
    missing: bool


@dataclass(frozen=True)
class PictureIndex:
    """An index that is ready to be searched.

    Attributes:
        identity: what the embeddings depend on, as it was given to `update`.
        reopen: what else the caller wanted to be remembered.
        files: absolute paths, sorted, one a vector.
        vectors: their embeddings.
    """

    identity: dict[str, Any]
    reopen: dict[str, Any]
    files: list[str]
    vectors: VectorIndex

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Self:
        """Opens an index that `update` has written.

        Raises:
            UserError: there is none, it is damaged, or it holds no picture.
        """
        folder = Path(folder)
        state = read_state(folder)
        if state is None:
            raise UserError(f"{folder} holds no index; make one by the command build")
        files = state["files"][0]
        if not files:
            raise UserError(f"{folder}: the index is empty; build it with readable pictures")
        codes = None if state["kind"] == "exact" else folder / f"codes-{state['generation']}.faiss"
        vectors = VectorIndex.load(open_vectors(folder, state), codes)
        return cls(state["identity"], state["reopen"], files, vectors)

    def search(self, embeddings: np.ndarray, top: int, *, probes: int | None = None) -> list[list[Neighbour]]:
        """The most similar pictures of each embedding, (Q, D) of length 1: see `VectorIndex.search`."""
        return [
            [
                Neighbour(self.files[row], similarity, not os.path.exists(self.files[row]))
                # A vector that was rounded to float16 can be a little longer than 1.
                for row, similarity in zip(rows, np.clip(similarities, -1, 1).tolist())
            ]
            for rows, similarities in self.vectors.search(embeddings, top, probes=probes)
        ]


def update(
    folder: str | os.PathLike,
    roots: Sequence[str | os.PathLike],
    *,
    embed: Embed,
    identity: Mapping[str, Any],
    reopen: Mapping[str, Any],
    only: bool = False,
    cells: int | None = None,
    rebuild: bool = False,
    save_every: int = SAVE_EVERY,
    damaged: Callable[[UnreadableImage], None] = lambda error: None,
) -> dict[str, Any]:
    """Brings an index up to date with the pictures under `roots`.

    Those that are new or have changed (by size or time) are embedded, those that are gone are dropped.

    Args:
        folder: of the index; made if need be.
        roots: folders of pictures.
        embed: see `Embedder.embed`.
        identity: what the embeddings depend on, of JSON's types; an index of another identity is refused.
        reopen: what else to remember, of JSON's types.
        only: drop what is not under `roots` too; otherwise it stays as it is.
        cells: see `VectorIndex.build`.
        rebuild: start anew, whatever the folder's index is.
        save_every: after how many pictures the work is saved.
        damaged: takes each picture that cannot be read; it is not tried again until it changes.

    Returns:
        `files` in the index, of them `added`, `changed` and `unchanged`; `removed`; `skipped`, all that
        cannot be read; `dimension` (0 without files); `kind`.

    Raises:
        UserError: there is no picture; the folder cannot be written, holds other things, or an index that
            is damaged or of another identity.
    """
    folder = Path(folder)
    roots = [os.path.abspath(root) for root in roots]
    stamps = {file: _stamp(file) for root in roots for file in find_in(root).files}
    settings = {"identity": dict(identity), "reopen": dict(reopen), "cells": cells}
    with locked(folder / FOLDER_LOCK):
        state = begin(folder, settings["identity"], rebuild)
        known = known_files(folder, state)
        if not stamps and not known:
            raise UserError(f"{', '.join(roots)}: no picture is there; name a folder with .jpg, .png ...")
        todo = {f: stamp for f, stamp in stamps.items() if f not in known or known[f].stamp != stamp}
        _embed_new(folder, todo, embed, save_every, damaged)

        wanted = {*stamps, *(file for file in known if not only and not _is_under(file, roots))}
        now = {file: entry for file, entry in sorted(known_files(folder, state).items()) if file in wanted}
        stale = parts_of(folder) or len(now) != len(known)
        if stale or any(state[name] != value for name, value in settings.items()):
            state = merge(folder, state | settings, now)
    before, after = ({file for file, entry in all_.items() if not entry.reason} for all_ in (known, now))
    return {
        "files": len(after),
        "added": len(after - before),
        "changed": len(after & before & todo.keys()),
        "unchanged": len(after & before - todo.keys()),
        "removed": len(before - after),
        "skipped": len(now) - len(after),
        "dimension": state["dimension"],
        "kind": state["kind"],
    }


def _stamp(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:  # reading it will say why
        return UNREAD
    return status.st_size, status.st_mtime_ns


def _is_under(file: str, roots: Sequence[str]) -> bool:
    return any(file.startswith(os.path.join(root, "")) for root in roots)


def _embed_new(
    folder: Path,
    stamps: Mapping[str, tuple[int, int]],
    embed: Embed,
    save_every: int,
    damaged: Callable[[UnreadableImage], None],
) -> None:
    """Embeds these files into new parts. When it is broken off, what is done is saved too."""
    entries: dict[str, tuple[int, int, int, str]] = {}
    vectors: list[np.ndarray] = []

    def skip(file: str, error: UnreadableImage) -> None:
        # What the system could not read may be there next time; what is damaged stays so until it changes.
        unread = getattr(error.__cause__, "errno", None) is not None
        entries[file] = (*(UNREAD if unread else stamps[file]), -1, error.reason)
        damaged(error)

    def save() -> None:
        if entries:
            save_part(folder, entries, vectors)
            entries.clear()
            vectors.clear()

    pictures = ((file, partial(decode, file)) for file in stamps)
    try:
        for file, vector in tqdm(embed(pictures, skip=skip), total=len(stamps), disable=None):
            entries[file] = (*stamps[file], len(vectors), "")
            vectors.append(vector)
            if len(entries) >= save_every:
                save()
    finally:
        save()
