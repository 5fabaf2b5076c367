"""The images that are to be classified, and which class each of them is, if that is known."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..common.errors import UserError
from ..data.binary import CIFAR10, find_set, read_set
from ..data.cifar100 import CIFAR100
from ..data.folders import LeftOut, find_images
from ..data.labels import class_numbers, read_labels, some_of
from .images import load_image

FOLDERS, AUTO = "folders", "auto"


@dataclass(frozen=True)
class Picture:
    """An image: its name in the answer, how it is read, and the number of its class or None."""

    file: str
    read: Callable[[], Image.Image]
    label: int | None = None


def find_pictures(
    paths: Iterable[str | os.PathLike],
    class_names: Sequence[str],
    *,
    labels: str | None = None,
    left_out: LeftOut | None = None,
) -> list[Picture]:
    """Finds the images of files and folders (see `find_images`), and gives all of them a label, or none.

    A folder with CIFAR's binary files stands for its test images and their labels.

    Args:
        paths: files and folders.
        class_names: of the model.
        labels: None for no labels; "folders": an image of FOLDER/NAME/* is of the class NAME; "auto": as
            folders where all of these are classes of the model, otherwise none; else a file, see
            `read_labels`.
        left_out: takes what the folders hold besides.

    Raises:
        UserError: there is no such image or file, an image has no label, or a label is no class of the model.
    """
    number = class_numbers(class_names)
    left_out = LeftOut() if left_out is None else left_out
    found: dict[str, tuple[Picture, str, str | None]] = {}  # the path below its folder; the class folder
    for path in map(Path, paths):
        for picture, below, folder in _test_images(path) or _image_files(path, left_out):
            found.setdefault(picture.file, (picture, below, folder))
    if not found:
        raise UserError("no image is named: give image files or folders")
    pictures = sorted(found.values(), key=lambda item: Path(item[0].file))
    if labels is None:
        return [picture for picture, _, _ in pictures]
    if labels in (FOLDERS, AUTO):
        strange = [picture.file for picture, _, folder in pictures if folder not in number]
        if strange and labels == AUTO:
            return [picture for picture, _, _ in pictures]
        if strange:
            raise UserError(
                f"labels: {some_of(strange)} in no folder named as a class of the model "
                f"({some_of(class_names)}); give a file of labels"
            )
        return [_labelled(picture, number[folder]) for picture, _, folder in pictures]
    pictures = [picture for picture, _, _ in pictures]
    given = read_labels(labels, [picture.file for picture in pictures], class_names)
    return [_labelled(picture, label) for picture, label in zip(pictures, given, strict=True)]


def _labelled(picture: Picture, label: int) -> Picture:
    return Picture(picture.file, picture.read, label)


def _image_files(path: Path, left_out: LeftOut) -> list[tuple[Picture, str, str | None]]:
    found, pictures = find_images([path]), []
    left_out.add(found.left_out)
    for file in found.files:
        below = Path(file).relative_to(path).as_posix() if path.is_dir() else path.name
        folder = below.split("/")[0] if "/" in below else None
        pictures.append((Picture(file, partial(load_image, file)), below, folder))
    return pictures


def _test_images(path: Path) -> list[tuple[Picture, str, str | None]]:
    """Those of CIFAR-10 or CIFAR-100 in its binary files, if the folder holds them."""
    for layout in (CIFAR10, CIFAR100):
        folder = find_set(layout, path) if path.is_dir() else None
        if folder:
            images = read_set(layout, folder, "test")
            names = [f"{folder / layout.test_name}#{index:05d}" for index in range(len(images))]
            return [
                (
                    Picture(name, lambda images=images, index=index: Image.fromarray(images.read(index))),
                    name.rpartition("/")[2],
                    images.class_names[images.labels[index]],
                )
                for index, name in enumerate(names)
            ]
    return []
