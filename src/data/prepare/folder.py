# SPDX-License-Identifier: Apache-2.0
"""Packing class folders of images, of any size and colour mode, into the CIFAR-10 binary layout."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...common.errors import UserError
from ...common.files import new_folder, working_in
from ..binary import CIFAR10, IMAGE_SHAPE, MAX_CLASSES, ImageSet, write_cifar10
from ..decode import UnreadableImage, decode_resized
from ..folders import number_of
from ..preparation import Preparation
from ..splits import Item, list_folder
from .cifar import report

# As the recipes for 32x32 images prepare larger ones.
_PLAN = Preparation(32, (0, 0, 0), (1, 1, 1), interpolation="bicubic").plan_square


def prepare_folder(data_path: Path, output_path: Path, *, val_fraction: float = 0.1, seed: int = 0) -> None:
    """Packs class folders of images; what cannot be read is named and passed over.

    Args:
        data_path: see `list_folder`; so are the last two.
        output_path: the folder that will hold the data set's folder.

    Raises:
        UserError: nothing was put in place: something is there already, it is the folder of the images, there
            are too many classes for a byte, a class has no readable training image, or there is no readable
            test image.
    """
    if seed < 0 or not 0 < val_fraction < 1:
        raise UserError("--seed must be 0 or above, and --val_fraction between 0 and 1")
    if output_path.resolve() == data_path.resolve():
        raise UserError(
            f"output_path: {output_path} holds the images, and training would read the packed ones in their "
            "place; give another folder"
        )
    listing = list_folder(data_path, val_fraction=val_fraction, seed=seed, skip_unreadable=True)
    print(*listing.in_words(), sep="\n")
    if len(listing.class_names) > MAX_CLASSES:
        raise UserError(
            f"{listing.train_root} holds {len(listing.class_names)} class folders, and at most {MAX_CLASSES} "
            "can be packed; train on the folder as it is (--dataset folder)"
        )
    target, skipped = output_path / CIFAR10.folder_name, []
    with working_in(output_path), new_folder(target) as folder:
        train, test = (_pack(items, listing.class_names, skipped) for items in (listing.train, listing.test))
        first = f"unreadable: {skipped[0]}" if skipped else "add images to its folder"
        for label, name in enumerate(listing.class_names):
            if label not in train.labels:
                raise UserError(f"the class {name} has no readable training image; {first}")
        if not len(test):
            raise UserError(f"there is no readable test image; {first}")
        write_cifar10(folder, train, test)
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    report(target, train, test, f"packed, {number_of(len(skipped), 'unreadable file')} skipped")


def _pack(items: Sequence[Item], class_names: tuple[str, ...], skipped: list[str]) -> ImageSet:
    """The readable images, mixed, for readers that do not shuffle; a line in `skipped` for each other."""
    images, labels = np.empty((len(items), *IMAGE_SHAPE), np.uint8), []
    order = np.random.default_rng(0).permutation(len(items))
    for file, label in tqdm((items[k] for k in order), "packing", len(items), unit="image", disable=None):
        try:
            images[len(labels)] = decode_resized(file, _PLAN).transpose(2, 0, 1)
        except UnreadableImage as error:
            skipped.append(f"{file}: {error.reason}")
        else:
            labels.append(label)
    return ImageSet(images[: len(labels)], np.array(labels, np.int32), class_names)
