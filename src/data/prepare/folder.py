"""Packing class folders of images, of any size and colour mode, into the CIFAR-10 binary layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...common.errors import UserError
from ..binary import MAX_CLASSES, TEST_NAME, encode_records, write_classes_and_sizes
from ..decode import UnreadableImage, decode
from ..splits import Item, Listing

SIDE = 32


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


def to_pixels(image: np.ndarray) -> np.ndarray:
    """Cuts out the middle square of an (H, W, 3) uint8 image and resizes it to 32x32.

    The same as resizing the short side to 32 with antialiasing and cropping the centre.

    Returns:
        (3, 32, 32) uint8.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(small).transpose(2, 0, 1)


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
                pixels = to_pixels(decode(source))
            except UnreadableImage as error:
                skipped.append(f"{source}: {error.reason}")
                continue
            file.write(encode_records(pixels[None], np.array([label])).tobytes())
            labels.append(label)
    return labels


def _first(skipped: Sequence[str]) -> str:
    return f"unreadable: {skipped[0]}" if skipped else "add images to its folder"
