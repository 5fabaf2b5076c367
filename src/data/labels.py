# SPDX-License-Identifier: Apache-2.0
"""Files of labels and of class names, as people and their programs write them."""

import ast
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import UserError
from ..common.files import read_text
from .folders import some_of
from .names import ClassNames, nfc

_SEPARATORS = ("\t", ";", ",", "|", " ")
_IMAGE = ("filename", "filepath", "file", "path", "imagename", "image", "imageid", "id")  # titles of columns
_CLASS = ("class", "label", "classname", "category", "target", "classid", "labelid")
# A class and the corners of a box, once for each box, as in ImageNet's and Tiny-ImageNet's lists.
_BOX = re.compile(r"(\S+)(\s+-?\d+){4}(\s+\1(\s+-?\d+){4})*")


@dataclass(frozen=True)
class _Line:
    number: int
    image: str
    written: str
    label: int | None
    more: bool  # whether further columns follow


def read_labels(
    path: str | os.PathLike, images: Sequence[str | os.PathLike], class_names: Sequence[str]
) -> list[int]:
    """The label of each image.

    Fields are separated by tabs, semicolons, commas, bars or a space, whichever makes most lines end in a
    class, and may be quoted. A first line of titles is passed over; it may put the columns in another order.
    Further columns are passed over too, as are images that are not asked for, of whatever class. The text is
    UTF-8, or UTF-16 with its mark.

    IMAGE is the end of an image's path, from its name alone to all of it, with either slash, with or without
    the extension; it must mean one image. CLASS is a name, else a number from 0. Accents compare as NFC.

    Raises:
        UserError: the file cannot be read, a class is none of the names, an image has two classes or none, or
            several columns could be the class.
    """
    lines = _lines_of(read_text(path, "give a file of lines IMAGE,CLASS in UTF-8", key="labels"))
    classes = ClassNames(class_names)
    tables = [list(_table(lines, separator, classes)) for separator in _SEPARATORS]
    table = max(tables, key=_sense)
    ends = [_ends(image) for image in images]
    meant = Counter(end for some in ends for end in some)
    given: dict[str, int] = {}
    unknown: dict[str, str] = {}  # what is wrong with a line, by its image
    for line in _without_titles(table, meant, path):
        if line.label is None:
            unknown.setdefault(
                line.image,
                f"{path}, line {line.number}: {line.written!r} is no class of {some_of(class_names)}; write "
                "IMAGE,CLASS with a class's name, or its number from 0",
            )
            continue
        if given.setdefault(line.image, line.label) != line.label:
            raise UserError(f"{path}, line {line.number}: {line.image} has another label above; keep one")
    labels = [next((given[end] for end in some if end in given and meant[end] == 1), None) for some in ends]
    if missing := [os.fspath(image) for image, label in zip(images, labels, strict=True) if label is None]:
        if unknown:
            raise UserError(unknown[min(unknown, key=lambda image: image not in meant)])
        raise UserError(
            f"{path}: no label for {len(missing)} of {len(images)} images ({some_of(missing)}); "
            "add lines with their paths below the folder"
        )
    return labels


def _without_titles(
    table: Sequence[_Line], images: Container[str], path: str | os.PathLike
) -> Sequence[_Line]:
    """The lines without a first one of titles that do not say which column is the class.

    Raises:
        UserError: there are several further columns, of numbers: ages, or one column for each class.
    """
    if not table:
        return table
    first, *rest = table
    if first.image in images or re.search(r"[./]|^\d+$", first.image) or first.written.isdecimal():
        return table
    if first.more and rest and all(line.written.isdecimal() for line in rest):
        raise UserError(
            f"{path}: no title says which column is the class; write label over it, with names of classes or "
            "their numbers from 0 below"
        )
    return rest if first.label is None else table


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """The names of classes in the order of their numbers.

    The file has a name a line, perhaps behind its number; or it is a JSON list, or a JSON object or Python
    dictionary of numbers and names in either direction. A name of several parts, as in ImageNet's
    `imagenet_class_index.json`, is joined: `n01440764 tench`.

    Raises:
        UserError: the file cannot be read, holds no names from number 0 on, or one that cannot be printed.
    """
    text = read_text(path, "give a file of a name a line in UTF-8", key="class_names").strip()
    if text[:1] not in ("[", "{"):
        names = _names_of_lines([line.strip() for _, line in _lines_of(text)])
    else:
        try:
            names = _names_in(_parsed(text))
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
            raise UserError(
                f"class_names: {path} is neither a list of names nor their numbers from 0 on; "
                "give a file with a name a line"
            ) from error
    if not names:
        raise UserError(f"class_names: {path} holds no names; give a file with a name a line")
    if wrong := [name for name in names if not name.strip() or not name.isprintable()]:
        raise UserError(f"class_names: {path} holds {wrong[0]!r}, which is no plain name; write another")
    return tuple(nfc(name) for name in names)


def _names_of_lines(lines: list[str]) -> list[str]:
    """The names by their numbers, if every line begins with one and they count from 0; else the lines."""
    parts = [re.fullmatch(r"(\d+)\s*[\s,:;]\s*(\S.*)", line) for line in lines]
    by_number = {int(part[1]): part[2] for part in parts if part}
    return [by_number[n] for n in range(len(lines))] if by_number.keys() == {*range(len(lines))} else lines


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _names_in(values: list | dict) -> list[str]:
    if isinstance(values, dict):
        if all(type(number) is int for number in values.values()):
            values = {number: name for name, number in values.items()}
        by_number = {int(number): name for number, name in values.items()}
        values = [by_number[number] for number in range(len(values))]
    return [" ".join(name if isinstance(name, list | tuple) else [name]) for name in values]


def _lines_of(text: str) -> list[tuple[int, str]]:
    lines = enumerate(re.split(r"\r\n|\n|\r", text), start=1)
    return [(place, line.strip(" ")) for place, line in lines if line.strip()]


def _table(lines: Sequence[tuple[int, str]], separator: str, classes: ClassNames) -> Iterator[_Line]:
    image, label = 0, 1
    for place, (line_number, line) in enumerate(lines):
        # A name with spaces may stand before a tab in a file whose other lines have spaces.
        between = "\t" if separator == " " and "\t" in line else separator
        try:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=between))]
        except csv.Error:
            fields = [line]
        if place == 0 and (columns := _columns(fields)):
            image, label = columns
            continue
        rest = fields[label:]
        choices = [between.join(rest), *(rest[:1] if between != " " else [])]
        found = (_label(choice, classes) for choice in choices)
        known = next((one for one in found if one is not None), None)
        name = _plain(fields[image]) if fields[image:] else ""
        yield _Line(line_number, name, choices[-1], known, more=between != " " and len(rest) > 1)


def _sense(table: Sequence[_Line]) -> tuple[int, int]:
    """How many lines have a class of the model, and how many something in its place."""
    return sum(line.label is not None for line in table), sum(line.written != "" for line in table)


def _columns(fields: Sequence[str]) -> tuple[int, int] | None:
    """Where the images and classes stand, if these are titles of columns that say so."""
    titles = [re.sub("[_ ]", "", field.lower()) for field in fields]
    places = [
        next((titles.index(word) for word in words if word in titles), None) for words in (_IMAGE, _CLASS)
    ]
    return None if None in places else tuple(places)


def _label(text: str, classes: ClassNames) -> int | None:
    boxed = _BOX.fullmatch(text)
    for name in (text, boxed[1] if boxed else ""):
        if (label := classes.label(name)) is not None:
            return label
        if name.isdecimal() and int(name) < len(classes.names):
            return int(name)
    return None


def _plain(image: str) -> str:
    """A path as it stands in the file, with slashes, without dots at its start."""
    parts = nfc(image).replace("\\", "/").split("/")
    while parts[1:] and parts[0] in (".", ".."):
        parts.pop(0)
    return "/".join(parts)


def _ends(image: str | os.PathLike) -> list[str]:
    """The ends of an image's path, the longest first, each with and without the extension."""
    path = nfc(os.path.abspath(image)).replace("\\", "/")
    ends = [path]
    while "/" in path:
        path = path.partition("/")[2]
        ends.append(path)
    return [form for end in ends for form in dict.fromkeys((end, os.path.splitext(end)[0]))]
