"""Packing class folders of images, of any size and colour mode, into the CIFAR-10 binary layout."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...common.errors import UserError
from ..binary import MAX_CLASSES, TEST_NAME, encode_records, write_classes_and_sizes
from ..decode import UnreadableImage, decode_resized
from ..resize import square_plan
from ..splits import Item, Listing

SIDE = 32
# As the recipes for 32x32 images prepare larger ones (`Preparation`).
_PLAN = functools.partial(square_plan, size=SIDE, crop="centre", crop_percentage=1.0, interpolation="bicubic")


def pack_folder(listing: Listing, folder: Path) -> list[str]:
    """Writes data_batch_1.bin, test_batch.bin, sizes.json and batches.meta.txt into `folder`.

    Returns:
        A line for each file that is no readable image and was left out: its path and the reason.

    Raises:
        UserError: there are too many classes for a byte, a class has no readable training image, or there is
            no readable test image.
    """
    if len(listing.class_names) > MAX_CLASSES:
        raise UserError(
            f"{listing.train_root} holds {len(listing.class_names)} class folders, and at most {MAX_CLASSES} "
            "can be packed; train on the folder as it is (--dataset folder)"
        )
    skipped = []
    train = _pack(listing.train, folder / "data_batch_1.bin", skipped)
    test = _pack(listing.test, folder / TEST_NAME, skipped)
    for label, name in enumerate(listing.class_names):
        if label not in train:
            raise UserError(f"the class {name} has no readable training image; {_first(skipped)}")
    if not test:
        raise UserError(f"there is no readable test image; {_first(skipped)}")
    write_classes_and_sizes(
        folder, listing.class_names, {"data_batch_1.bin": len(train), TEST_NAME: len(test)}
    )
    return skipped


def _pack(items: Sequence[Item], path: Path, skipped: list[str]) -> list[int]:
    """Writes a record for each readable image, appends to `skipped` for each other; returns the labels.

    The classes are mixed, for readers that do not shuffle.
    """
    labels = []
    with path.open("wb") as file:
        order = np.random.default_rng(0).permutation(len(items))
        for source, label in tqdm(
            (items[k] for k in order), path.stem, len(items), unit="image", disable=None
        ):
            try:
                pixels = decode_resized(source, _PLAN).transpose(2, 0, 1)
            except UnreadableImage as error:
                skipped.append(f"{source}: {error.reason}")
                continue
            file.write(encode_records(pixels[None], np.array([label])).tobytes())
            labels.append(label)
    return labels


def _first(skipped: Sequence[str]) -> str:
    return f"unreadable: {skipped[0]}" if skipped else "add images to its folder"
