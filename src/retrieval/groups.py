# SPDX-License-Identifier: Apache-2.0
"""Retrieval tasks from folders of groups: a folder for each thing, person or place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..data.folders import Reader, class_folders, counted, number_of
from ..data.names import alike_but_for, nfc, split_folders
from .task import Picture, RetrievalSet, Truth, arrays

_ROLES = {
    **dict.fromkeys(("query", "queries", "probe", "probes"), "query"),
    **dict.fromkeys(("gallery", "database", "index", "reference", "references"), "gallery"),
}


def role_of(name: str) -> str | None:
    """query or gallery, if the name of a folder means that, in any case."""
    return _ROLES.get(name.lower())


def query_and_gallery(folder: Path, folders: Sequence[str]) -> dict[str, str]:
    """The two of the folders, by their role, whatever other words they have alike; or none.

    Raises:
        UserError: one of the two is there twice.
    """
    found = alike_but_for(_ROLES, folder, folders, first="query")
    for names in found.values():
        if len(names) > 1:
            raise UserError(f"{folder} holds {' and '.join(names)}, which mean the same; keep one")
    return {role: name for role, (name,) in found.items()}


def open_groups(folder: Path, reader: Reader) -> RetrievalSet:
    """FOLDER/<group>/*: every picture is a query, the others of its folder are right.

    Raises:
        UserError: there are fewer than two groups, or the folders are splits, or one of query and gallery.
    """
    found = _by_group(folder, reader)
    splits = [*split_folders(folder, [*found]).values()]
    if len(splits) > 1 or len(splits) == len(found):
        raise UserError(
            f"{folder} holds splits ({', '.join(splits)}), no groups; give one, as {folder / splits[-1]}"
        )
    roles = [name for name in found if role_of(name)]
    if roles:
        raise UserError(
            f"{folder} holds {roles[0]}, and not both of query and gallery; add the other one, or rename it "
            "if it is a group"
        )
    if len(found) < 2:
        raise UserError(
            f"{folder} holds one group alone ({', '.join(found)}), in which every answer is right; give a "
            "folder of several"
        )
    files, positives = [], []
    for images in found.values():
        positives += [np.arange(len(files), len(files) + len(images))] * len(images)
        files += images
    pictures = tuple(map(Picture, files))
    truth = Truth(tuple(positives), arrays([index] for index in range(len(files))))
    return RetrievalSet("groups", pictures, pictures, {"": truth}, notes=(_named(found),))


def open_query_gallery(folder: Path, reader: Reader) -> RetrievalSet:
    """FOLDER/query/<group>/* asks, those of the same group in FOLDER/gallery/<group>/* are right.

    Raises:
        UserError: one of the two is missing, there twice, or has no groups.
    """
    parts = query_and_gallery(folder, class_folders(folder))
    if not parts:
        raise UserError(
            f"{folder}: folders query and gallery are needed, with a folder for each group in them"
        )
    queries, gallery = (_by_group(folder / parts[role], reader) for role in ("query", "gallery"))
    start, places = 0, {}
    for name, images in gallery.items():
        places[name] = np.arange(start, start + len(images))
        start += len(images)
    asked = [(file, places.get(name, np.arange(0))) for name, images in queries.items() for file in images]
    database = tuple(Picture(file) for images in gallery.values() for file in images)
    truth = Truth(tuple(right for _, right in asked), arrays([[]] * len(asked)))
    notes = [_named(gallery)]
    if alone := [name for name in queries if name not in gallery]:
        notes.append(f"nothing to find for {counted(alone, 'group')}")
    pictures = tuple(Picture(file) for file, _ in asked)
    return RetrievalSet("query_gallery", database, pictures, {"": truth}, notes=tuple(notes))


def _by_group(folder: Path, reader: Reader) -> dict[str, list[str]]:
    """The pictures of each folder in a folder, by its name in NFC; those without pictures are left out."""
    contents = reader.look(folder)
    reader.take(contents)
    if not contents.folders:
        raise UserError(f"{folder} holds no folders; a folder of images for each group is needed")
    groups: dict[str, list[str]] = {}
    for name in contents.folders:
        groups.setdefault(nfc(name), []).extend(reader.pictures(folder / name))
    empty = [name for name, images in groups.items() if not images]
    if len(empty) == len(groups):
        raise UserError(f"{folder}: none of its folders holds an image; {reader.left_out.in_words()}")
    if empty:
        reader.left_out.remarks.append(f"without a picture: {counted(empty, 'group')}")
    if contents.files:
        loose = number_of(len(contents.files), "picture")
        reader.left_out.remarks.append(f"{loose} in {folder} outside of the groups")
    return {name: images for name, images in groups.items() if images}


def _named(groups: Mapping[str, list[str]]) -> str:
    return f"of {counted([*groups], 'group')}"
