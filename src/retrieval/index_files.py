"""The files of a picture index, whole at every moment: a killed build leaves the old index or the new one.

    index.json        the model, the settings, the files in the order of their paths: what counts
    vectors-G.npy     (n, D) float16, a row a file
    codes-G.faiss     short codes of the vectors, unless all are compared; see `VectorIndex`
    part-NNNNNN.npz   pictures that a build has embedded and not yet merged

Each file appears by renaming, and `index.json` names the others by its generation G. The parts are what the
next build need not embed again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..common.errors import UserError
from ..common.files import atomic_path
from .vectors import VectorIndex

FORMAT = 1
_BLOCK = 4096  # vectors that are copied at once
_EMPTY = {
    "format": FORMAT, "identity": {}, "reopen": None, "cells": None, "generation": 0,
    "dimension": 0, "kind": "exact", "files": [[], [], []], "damaged": {},
}  # fmt: skip
_OURS = ("index.json", "vectors-*.npy", "codes-*.faiss", "part-*.npz")


class Entry(NamedTuple):
    """What is known of a file: its stamp when it was read, and either a row or what is wrong with it."""

    size: int
    mtime_ns: int
    row: int
    reason: str
    part: str  # the file that holds the row; empty: the vectors of the index

    @property
    def stamp(self) -> tuple[int, int]:
        return self.size, self.mtime_ns


def begin(folder: Path, identity: dict[str, Any], rebuild: bool) -> dict[str, Any]:
    """The state to start from, and a folder without what killed builds have left there.

    Raises:
        UserError: the index is of another identity or damaged, or the folder is none of an index.
    """
    state = None if rebuild else read_state(folder)
    if state is None:
        others = sorted(
            path.name
            for path in folder.iterdir()
            if not _is_ours(path) and not path.name.startswith(".quartet-")
        )
        if others and not (folder / "index.json").exists():
            raise UserError(f"{folder} holds other files ({others[0]}) and no index; choose another --index")
        state = _EMPTY | {"identity": identity}
        _clean(folder, state, parts=True)
        _write_state(folder, state)
    for name, asked in identity.items():
        if (built := state["identity"].get(name)) != asked:
            raise UserError(
                f"{folder} was built with {name} {built}, not {asked}; "
                "choose another --index, or start this one anew with --rebuild"
            )
    _clean(folder, state, parts=False)
    return state


def _is_ours(path: Path) -> bool:
    return any(path.match(name) for name in _OURS)


def _clean(folder: Path, state: Mapping[str, Any], *, parts: bool) -> None:
    """Removes what `state` does not name; the parts only if they are merged or of another index."""
    generation = state["generation"]
    current = {"index.json", f"vectors-{generation}.npy", f"codes-{generation}.faiss"}
    current |= set() if parts else {path.name for path in parts_of(folder)}
    for path in folder.iterdir():
        if _is_ours(path) and path.name not in current:
            path.unlink()


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `index.json` says, None where there is none.

    Raises:
        UserError: it is damaged or of another format.
    """
    path = folder / "index.json"
    try:
        state = json.loads(path.read_text(encoding="ascii"))
        version = state["format"]
        whole = version != FORMAT or _is_whole(state)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged; build the index with --rebuild") from error
    if version != FORMAT:
        raise UserError(f"{path} is of format {version}, not {FORMAT}; build the index with --rebuild")
    if not whole:
        raise UserError(f"{path} is damaged; build the index with --rebuild")
    return state


def _is_whole(state: Mapping[str, Any]) -> bool:
    """Whether all is there, of the types that are written, and the columns of files are equally long."""
    if not _EMPTY.keys() <= state.keys():
        return False
    typed = all(isinstance(state[name], type(value)) for name, value in _EMPTY.items() if value is not None)
    return typed and len(state["files"]) == 3 and len({*map(len, state["files"])}) == 1


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    with atomic_path(folder / "index.json") as temporary:
        temporary.write_text(json.dumps(state), encoding="ascii")  # a path need not be valid UTF-8


def open_vectors(folder: Path, state: Mapping[str, Any]) -> np.ndarray:
    """The vectors of the index, (n, D) float16, as a memory map.

    Raises:
        UserError: they are missing, damaged or of other files.
    """
    path, shape = folder / f"vectors-{state['generation']}.npy", (len(state["files"][0]), state["dimension"])
    try:
        vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing or damaged; build the index with --rebuild") from error
    if vectors.shape != shape:
        raise UserError(f"{path} holds {vectors.shape}, not {shape}; build the index with --rebuild")
    return vectors


def parts_of(folder: Path) -> list[Path]:
    """The parts that are not merged, the oldest first."""
    return sorted(folder.glob("part-*.npz"))


def save_part(
    folder: Path, entries: Mapping[str, tuple[int, int, int, str]], vectors: Sequence[np.ndarray]
) -> None:
    """Writes the next part: for each file size, time, its row of `vectors` and what is wrong with it."""
    last = max((int(path.stem.removeprefix("part-")) for path in parts_of(folder)), default=0)
    text = np.frombuffer(json.dumps(entries).encode("ascii"), np.uint8)
    with atomic_path(folder / f"part-{last + 1:06d}.npz") as temporary:
        np.savez(temporary, entries=text, vectors=np.array(vectors, np.float16))


def _read_part(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as part:
            return part[name]
    except Exception as error:  # a damaged file makes zipfile and numpy raise nearly anything
        raise UserError(f"{path} is damaged; remove it and build again") from error


def known_files(folder: Path, state: Mapping[str, Any]) -> dict[str, Entry]:
    """All files that the index and its parts know, by path; of a file in several parts the last counts."""
    known = {
        file: Entry(size, time, row, "", "") for row, (file, size, time) in enumerate(zip(*state["files"]))
    }
    known |= {file: Entry(*stamp, -1, reason, "") for file, (*stamp, reason) in state["damaged"].items()}
    for part in parts_of(folder):
        entries = json.loads(_read_part(part, "entries").tobytes())
        known |= {file: Entry(*entry, part.name) for file, entry in entries.items()}
    return known


def merge(folder: Path, state: Mapping[str, Any], entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Writes the next generation of the index, with the vectors in the order of `entries`."""
    whole = {file: entry for file, entry in entries.items() if not entry.reason}
    sources: dict[str, list[tuple[int, int]]] = {}  # part -> (row there, row here)
    for row, entry in enumerate(whole.values()):
        sources.setdefault(entry.part, []).append((entry.row, row))
    merged = {
        **state,
        "generation": state["generation"] + 1,
        "dimension": 0,
        "kind": "exact",
        "files": [list(whole), *([entry.stamp[n] for entry in whole.values()] for n in (0, 1))],
        "damaged": {file: (*entry.stamp, entry.reason) for file, entry in entries.items() if entry.reason},
    }
    if whole:
        path = folder / f"vectors-{merged['generation']}.npy"
        with atomic_path(path) as temporary:
            vectors = None
            for part, rows in sources.items():
                source = _read_part(folder / part, "vectors") if part else open_vectors(folder, state)
                if vectors is None:
                    vectors = _new_array(temporary, (len(whole), source.shape[1]))
                if source.shape[1] != vectors.shape[1]:
                    raise UserError(
                        f"{folder} holds embeddings of {source.shape[1]} and of {vectors.shape[1]} numbers; "
                        "choose another --index, or start this one anew with --rebuild"
                    )
                for start in range(0, len(rows), _BLOCK):
                    there, here = np.array(rows[start : start + _BLOCK]).T
                    vectors[here] = source[there]
            vectors.flush()
        index = VectorIndex.build(vectors, cells=state["cells"])
        index.save(folder / f"codes-{merged['generation']}.faiss")
        merged |= {"dimension": vectors.shape[1], "kind": index.kind}
    _write_state(folder, merged)
    _clean(folder, merged, parts=True)
    return merged


def _new_array(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A float16 array in a file. A full disk is an error here, where later it would kill the process."""
    array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return array
