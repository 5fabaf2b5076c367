# SPDX-License-Identifier: Apache-2.0
"""From a folder on disk to a retrieval task: a database, queries, and which images are right for each query.

The published sets, as their archives unpack, and any folder of folders:

    holidays    100000.jpg ... in FOLDER or FOLDER/jpg: the number // 100 is the group, and the image whose
                number is divisible by 100 the query; it is taken out of its own ranking
    ukb         ukbench00000.jpg ... in FOLDER or FOLDER/full: four consecutive numbers are a group; every
                image is a query, and is in its own ranking
    copydays    FOLDER/original and FOLDER/strong, or other kinds of `copies` (copydays_original ... too):
                copies are queries, and the original of the same number // 100 is right
    roxford5k   FOLDER/gnd_roxford5k.pkl beside FOLDER/jpg: queries cut to their box, easy, medium and hard
    rparis6k    FOLDER/gnd_rparis6k.pkl, the same
    query_gallery   FOLDER/query/<group>/* and FOLDER/gallery/<group>/* (or probe, database ...): for an image
                of query, those of the same group in gallery are right
    groups      FOLDER/<group>/*: every image is a query, the others of its folder are right
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from ..common.errors import UserError
from ..data.folders import Reader, class_folders
from .copies import KINDS
from .groups import open_groups, open_query_gallery, query_and_gallery
from .revisited import read_ground_truth
from .task import Picture, RetrievalSet, Truth, arrays

log = logging.getLogger("quartet")

REVISITED = ("roxford5k", "rparis6k")
# The folder in the archive, the number in a file's name, and an example.
_NUMBERED = {
    "holidays": ("jpg", re.compile(r"(1\d{5})"), "100000.jpg"),
    "ukb": ("full", re.compile(r"ukbench(\d{5})", re.IGNORECASE), "ukbench00000.jpg"),
}
_PUBLISHED = {"holidays": 1491, "ukb": 10200}  # images


def open_retrieval_set(
    folder: str | os.PathLike,
    *,
    protocol: str = "auto",
    rotations: str | os.PathLike | None = None,
    distractors: str | os.PathLike | None = None,
) -> RetrievalSet:
    """Lists a retrieval set; no image is read.

    Args:
        folder: laid out as the module's docstring says.
        protocol: one of PROTOCOLS, or "auto", which looks.
        rotations: for holidays, a YAML file with `NAME: DEGREES` for each image that stands wrong, multiples
            of 90, clockwise: the form of the official MultiGrain's list.
        distractors: a folder, searched to any depth, of images that are wrong for every query.

    Raises:
        UserError: a folder or file is missing, or is not what the protocol wants; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give that of a retrieval set as data_path")
    if protocol == "auto":
        protocol = _detect(folder)
    if protocol not in _OPEN:
        raise UserError(f"--protocol: {protocol!r} given, allowed: auto, {', '.join(PROTOCOLS)}")
    reader = Reader()
    found = replace(_OPEN[protocol](folder, reader), left_out=reader.left_out)
    if len(found.database) != _PUBLISHED.get(protocol, len(found.database)):
        log.warning(
            "%s: %d images, where the published %s has %d: no number compares with others",
            folder, len(found.database), protocol, _PUBLISHED[protocol],
        )  # fmt: skip
    if rotations is not None:
        if protocol != "holidays":
            raise UserError(f"--rotations {rotations}: only with --protocol holidays, not {protocol}")
        found = _turned(found, Path(rotations))
    if distractors is not None:
        known = {picture.file for picture in found.database}
        more = [file for file in _images(Path(distractors), reader) if file not in known]
        found = replace(found, database=found.database + tuple(map(Picture, more)))
    return found


def _detect(folder: Path) -> str:
    """The protocol whose files are there; groups if there are folders and nothing else fits."""
    folders = class_folders(folder)
    truths = [name for name in REVISITED if (folder / f"gnd_{name}.pkl").is_file()]
    if len(truths) > 1:
        raise UserError(
            f"{folder} holds {' and '.join(truths)}; choose with --protocol {' or '.join(truths)}"
        )
    if truths:
        return truths[0]
    if all(_copies_folders(folder)):
        return "copydays"
    for protocol, (inside, pattern, _) in _NUMBERED.items():
        files = (path for path in _one_of(folder, inside).iterdir() if pattern.fullmatch(path.stem))
        if any(path.is_file() for path in files):
            return protocol
    if query_and_gallery(folder, folders):
        return "query_gallery"
    if folders:
        return "groups"
    raise UserError(
        f"{folder} holds no retrieval set: a folder of images for each group is needed, or one of "
        f"{', '.join(PROTOCOLS[:-1])} as its archive unpacks"
    )


def _holidays(folder: Path, reader: Reader) -> RetrievalSet:
    files, numbers = _numbered_set(folder, "holidays", reader)
    groups = defaultdict(list)
    for index, number in enumerate(numbers):
        groups[number // 100].append(index)
    for group, (first, *_) in groups.items():
        if numbers[first] % 100:
            raise UserError(f"{files[first]}: its group has no query, {group}00.jpg; add it")
    pictures = tuple(map(Picture, files))
    queries = [first for first, *_ in groups.values()]
    truth = Truth(arrays(groups.values()), arrays([query] for query in queries))
    return RetrievalSet("holidays", pictures, tuple(pictures[query] for query in queries), {"": truth})


def _ukb(folder: Path, reader: Reader) -> RetrievalSet:
    files, numbers = _numbered_set(folder, "ukb", reader)
    for start in range(0, len(files), 4):
        group = range(numbers[start] // 4 * 4, numbers[start] // 4 * 4 + 4)
        if numbers[start : start + 4] != [*group]:
            raise UserError(
                f"{files[start]}: images {group[0]} to {group[-1]} are a group, and one of them is missing; "
                "add it"
            )
    pictures = tuple(map(Picture, files))
    positives = arrays(range(index // 4 * 4, index // 4 * 4 + 4) for index in range(len(files)))
    return RetrievalSet("ukb", pictures, pictures, {"": Truth(positives, arrays([[]] * len(files)))})


def _copydays(folder: Path, reader: Reader) -> RetrievalSet:
    original, parts = _copies_folders(folder)
    if not original or not parts:
        missing = "strong" if original else "original"
        raise UserError(
            f"{folder} holds no folder {missing} or copydays_{missing}; unpack Copydays' archive of that name"
        )
    digits = re.compile(r"(\d+)")
    originals, numbers = _numbered(original, digits, "200000.jpg", reader)
    places = {number // 100: place for place, number in enumerate(numbers) if number % 100 == 0}
    copies, kinds, positives = [], [], []
    for kind, part in parts.items():
        for copy, number in zip(*_numbered(part, digits, "200001.jpg", reader), strict=True):
            if number // 100 not in places:
                raise UserError(f"{copy}: {original} lacks its original, {number // 100}00.jpg; add it")
            copies.append(Picture(copy))
            kinds.append(kind)
            positives.append([places[number // 100]])
    truth = Truth(arrays(positives), arrays([[]] * len(copies)))
    pictures = tuple(map(Picture, originals))
    return RetrievalSet("copydays", pictures, tuple(copies), {"": truth}, kinds=tuple(kinds))


def _revisited(name: str, folder: Path, reader: Reader) -> RetrievalSet:
    truth = read_ground_truth(folder / f"gnd_{name}.pkl")

    def file(image: str) -> str:
        path = folder / "jpg" / f"{image}.jpg"
        if not path.is_file():
            raise UserError(f"{path} is missing; unpack the images of {name} there")
        return str(path)

    database = tuple(Picture(file(image)) for image in truth.database)
    boxes = zip(truth.queries, truth.boxes, strict=True)
    queries = tuple(Picture(file(image), box=box) for image, box in boxes)

    def both(*kinds: list[Sequence[int]]) -> tuple[np.ndarray, ...]:
        return arrays([*one, *other] for one, other in zip(*kinds, strict=True))

    easy, hard, junk = truth.easy, truth.hard, truth.junk
    truths = {
        "easy": Truth(arrays(easy), both(junk, hard)),
        "medium": Truth(both(easy, hard), arrays(junk)),
        "hard": Truth(arrays(hard), both(junk, easy)),
    }
    return RetrievalSet(name, database, queries, truths)


_OPEN: Mapping[str, Callable[[Path, Reader], RetrievalSet]] = {
    "holidays": _holidays,
    "ukb": _ukb,
    "copydays": _copydays,
    **{name: partial(_revisited, name) for name in REVISITED},
    "query_gallery": open_query_gallery,
    "groups": open_groups,
}
PROTOCOLS = tuple(_OPEN)


def _one_of(folder: Path, inside: str) -> Path:
    """The folder of that name in `folder`, or `folder` itself."""
    return folder / inside if (folder / inside).is_dir() else folder


def _copies_folders(folder: Path) -> tuple[Path | None, dict[str, Path]]:
    """The folder of originals, and by kind those of copies."""
    named = {name.removeprefix("copydays_"): folder / name for name in class_folders(folder)}
    return named.get("original"), {kind: path for kind, path in named.items() if kind in KINDS}


def _images(folder: Path, reader: Reader) -> list[str]:
    files = reader.pictures(folder) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder} holds no image; put some there (.jpg, .png ...), or give another folder")
    return files


def _numbered_set(folder: Path, protocol: str, reader: Reader) -> tuple[list[str], list[int]]:
    inside, pattern, example = _NUMBERED[protocol]
    return _numbered(_one_of(folder, inside), pattern, example, reader)


def _numbered(folder: Path, pattern: re.Pattern, example: str, reader: Reader) -> tuple[list[str], list[int]]:
    """The images of a folder and the number in each name, by the number."""
    by_number: dict[int, str] = {}
    for file in _images(folder, reader):
        match = pattern.fullmatch(Path(file).stem)
        if not match:
            raise UserError(f"{file}: its name is none of this set's, as {example}; remove it from there")
        number = int(match[1])
        if number in by_number:
            raise UserError(f"{file} has the number of {by_number[number]}; remove one of them")
        by_number[number] = file
    numbers = sorted(by_number)
    return [by_number[number] for number in numbers], numbers


def _turned(found: RetrievalSet, rotations: Path) -> RetrievalSet:
    turns = _read_rotations(rotations)
    names = {Path(picture.file).name for picture in found.database}
    for name in turns:
        if name not in names:
            raise UserError(f"{rotations}: {name} is no image of the set; remove its line")

    def turned(pictures: Sequence[Picture]) -> tuple[Picture, ...]:
        return tuple(replace(p, turns=turns.get(Path(p.file).name, 0)) for p in pictures)

    return replace(found, database=turned(found.database), queries=turned(found.queries))


def _read_rotations(path: Path) -> dict[str, int]:
    """Quarter turns counter-clockwise, as numpy counts them, by the name of the image."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--rotations {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8
        raise UserError(f"--rotations {path} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(given, dict):
        raise UserError(f"--rotations {path}: lines like '100101.jpg: 90' are expected")
    for name, degrees in given.items():
        if type(degrees) is not int or degrees % 90:
            raise UserError(f"{path}: {name}: {degrees!r} given, allowed: multiples of 90, clockwise")
    return {name: -degrees // 90 % 4 for name, degrees in given.items()}
