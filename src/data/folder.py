"""Packing class folders of images, of any size and colour mode, into the CIFAR-10 binary layout."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from src.data.cifar10 import MAX_CLASSES, TEST_NAME, encode_records, write_classes_and_sizes
from src.model_utils.errors import UserError

SIDE = 32
LAYOUT = "IMAGES/<class>/*, or IMAGES/train/<class>/* and IMAGES/test/<class>/* (or val), is needed"

Item = tuple[Path, int]  # an image file and its label


@dataclass(frozen=True)
class Listing:
    """Which image files belong to which class and split."""

    class_names: tuple[str, ...]
    train: list[Item]
    test: list[Item]


def list_folder(images: str | os.PathLike, *, test_fraction: float, seed: int) -> Listing:
    """Finds the image files of `IMAGES/<class>`, or of `IMAGES/train/<class>` and `IMAGES/test|val/<class>`.

    Without a folder for tests, `test_fraction` of each class, chosen by `seed`, is for testing.

    Raises:
        UserError: the folder is missing or laid out otherwise, or its classes do not fit.
    """
    images = Path(images)
    if not images.is_dir():
        raise UserError(f"{images} is not a folder; {LAYOUT}")
    names = {folder.name for folder in _folders(images)}
    test_names = [name for name in ("test", "val") if name in names]
    has_splits = "train" in names and (bool(test_names) or names == {"train"})
    train_root = images / "train" if has_splits else images
    class_names = tuple(folder.name for folder in _folders(train_root))
    _check_classes(train_root, class_names)

    rng = np.random.default_rng(seed)
    train, test = [], []
    for label, name in enumerate(class_names):
        items = [(path, label) for path in _files(train_root / name)]
        items = [items[k] for k in rng.permutation(len(items))]
        held_out = 0
        if not (has_splits and test_names) and len(items) > 1:
            held_out = min(max(round(test_fraction * len(items)), 1), len(items) - 1)
        test += items[:held_out]
        train += items[held_out:]
    if has_splits and test_names:
        test_root = images / test_names[0]
        for folder in _folders(test_root):
            if folder.name not in class_names:
                raise UserError(
                    f"{folder} is of a class that {train_root} does not have; rename or remove it"
                )
            test += [(path, class_names.index(folder.name)) for path in _files(folder)]
    return Listing(class_names, *([items[k] for k in rng.permutation(len(items))] for items in (train, test)))


def pack_folder(listing: Listing, folder: Path) -> list[str]:
    """Writes data_batch_1.bin, test_batch.bin, sizes.json and batches.meta.txt into `folder`.

    Returns:
        A line for each file that is no readable image and was left out: its path and the reason.

    Raises:
        UserError: a class has no readable training image, or there is no readable test image.
    """
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


def to_pixels(image: Image.Image) -> np.ndarray:
    """Turns upright, puts on white what is transparent, cuts out the middle square and resizes it to 32x32.

    The same as resizing the short side to 32 with antialiasing and cropping the centre.

    Returns:
        (3, 32, 32) uint8.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which a plain conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image).transpose(2, 0, 1)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _check_classes(root: Path, names: Sequence[str]) -> None:
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UserError(f"{root} holds {len(names)} class folders, 1 to {MAX_CLASSES} are possible; {LAYOUT}")
    for name in names:
        if not name.isprintable() or name != name.strip():
            raise UserError(f"the class folder {name!r} in {root} has no plain name; rename it")


def _pack(items: Sequence[Item], path: Path, skipped: list[str]) -> list[int]:
    """Writes a record for each readable image, appends to `skipped` for each other; returns the labels."""
    labels = []
    with path.open("wb") as file:
        for source, label in tqdm(items, desc=path.stem, unit="image", disable=None):
            try:
                with Image.open(source) as image:
                    pixels = to_pixels(image)
            except Exception as error:  # decoders raise nearly anything on a damaged file
                reason = str(error).partition("\n")[0] or type(error).__name__
                skipped.append(f"{source}: {reason}")
                continue
            file.write(encode_records(pixels[None], np.array([label])).tobytes())
            labels.append(label)
    return labels


def _first(skipped: Sequence[str]) -> str:
    return f"unreadable: {skipped[0]}" if skipped else "add images to its folder"
