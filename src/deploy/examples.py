# SPDX-License-Identifier: Apache-2.0
"""The images that are to be classified, and which class each of them is, if that is known."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..data.binary import CIFAR10, CIFAR100, find_set, read_set
from ..data.decode import decode_resized
from ..data.folders import Found, LeftOut, find_images, some_of
from ..data.labels import read_labels
from ..data.names import ClassNames
from ..data.resize import Plan

FOLDERS, AUTO = "folders", "auto"


@dataclass(frozen=True)
class Example:
    """An image and what is known of it.

    Attributes:
        file: its name in the answer.
        read: gives what a plan makes of it, (h, w, 3) uint8.
        folder: the class folder that it lies in.
        label: the number of its class, or None.
    """

    file: str
    read: Callable[[Plan], np.ndarray]
    folder: str
    label: int | None = None


def find_examples(
    paths: Iterable[str | os.PathLike], class_names: Sequence[str], *, labels: str | None = None
) -> tuple[list[Example], Found]:
    """Finds the images of files and folders, and gives all of them a label, or none.

    They come in the order of `paths`, those of a folder sorted, each file once. A folder with CIFAR's binary
    files stands for its test images and their labels.

    Args:
        paths: files and folders, see `find_images`.
        class_names: of the model.
        labels: None for no labels; "folders": an image is of the class that the folder is named as, FOLDER's
            own for FOLDER/NAME/*; "auto": as folders where all of these are classes of the model, otherwise
            none; else a file, see `read_labels`.

    Returns:
        the images, and what the folders hold in words.

    Raises:
        UserError: there is no such image or file, an image has no label, or a label is no class of the model.
    """
    found: dict[str, Example] = {}
    left_out = LeftOut()
    where = tuple(os.fspath(path) for path in paths)
    for path in where or [None]:
        examples = _test_images(path) if path and os.path.isdir(path) else []
        if not examples:
            files = find_images([path] if path else [])
            left_out.add(files.left_out)
            examples = [(os.path.realpath(file), _of_file(file, path)) for file in files.files]
        for real, example in examples:
            found.setdefault(real, example)
    examples = _labelled(list(found.values()), class_names, labels)
    return examples, Found(where, [example.file for example in examples], left_out)


def _labelled(examples: list[Example], class_names: Sequence[str], labels: str | None) -> list[Example]:
    if labels is None:
        return examples
    if labels in (FOLDERS, AUTO):
        classes = ClassNames(class_names)
        given = [classes.label(example.folder) for example in examples]
        strange = [example.file for example, label in zip(examples, given, strict=True) if label is None]
        if strange and labels == AUTO:
            return examples
        if strange:
            raise UserError(
                f"labels: {some_of(strange)} in no folder named as a class of the model "
                f"({some_of(class_names)}); give a file of labels"
            )
    else:
        given = read_labels(labels, [example.file for example in examples], class_names)
    return [replace(example, label=label) for example, label in zip(examples, given, strict=True)]


def _of_file(file: str, path: str) -> Example:
    inside = os.path.relpath(file, path).split(os.sep)
    folder = inside[0] if inside[1:] else os.path.basename(os.path.dirname(os.path.abspath(file)))
    return Example(file, partial(decode_resized, file), folder)


def _test_images(path: str) -> list[tuple[str, Example]]:
    """Those of CIFAR-10 or CIFAR-100 in its binary files, if the folder holds them."""
    for layout in (CIFAR10, CIFAR100):
        if folder := find_set(layout, Path(path)):
            images = read_set(layout, folder, "test")
            names = (f"{folder / layout.test_name}#{index:05d}" for index in range(len(images)))
            return [
                (name, Example(name, partial(images.read, index), images.class_names[label]))
                for index, (name, label) in enumerate(zip(names, images.labels, strict=False))
            ]
    return []
