"""Prepares a data set: in the CIFAR-10 binary layout, CIFAR-100 in its own, ImageNet in class folders.

    python -m src.data.prepare cifar10  --output_path data [--archive FILE] [--md5 HEX|any]
    python -m src.data.prepare cifar100 --output_path data [--archive FILE] [--md5 HEX|any]
    python -m src.data.prepare shapes   --output_path DIR [--seed 0] [--train_images N] [--test_images N]
    python -m src.data.prepare folder IMAGES --output_path DIR [--test_fraction 0.2] [--seed 0]
    python -m src.data.prepare imagenet --archives FOLDER --output_path DIR [--md5 skip] [--val_labels FILE]

    python -m src.data.prepare mindrecord --data_path FOLDER --output_path DIR [--shards 16]
    python -m src.data.prepare samples --data_path DIR --output_path FOLDER [--count 8]

The data set is then DIR/cifar-10-batches-bin, DIR/cifar-100-binary or DIR/train and DIR/val; give DIR as
data_path. `folder` packs images at 32x32; for larger ones train on the folder as it is. `imagenet` unpacks
the official ILSVRC2012 archives that you brought. `mindrecord` writes class folders of images, compressed as
they are, into MindRecord shards; run it again to go on after a stop. `samples` writes test images as PNG.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ...common.cli import parser, run
from ...common.errors import UserError
from ...common.files import atomic_path, checksum, is_free, new_folder
from ...common.lock import FOLDER_LOCK, locked
from ..binary import CIFAR10, ImageSet, Layout, read_set, write_cifar10
from ..cifar100 import CIFAR100
from ..damage import WholePictures, without_faults
from ..manifest import faults_of
from ..mindrecord import MAX_SHARDS
from ..sources import SPLITS, open_split, open_splits
from ..splits import LAYOUT, list_folder
from . import shapes
from .fetch import download
from .folder import pack_folder
from .imagenet import DEVKIT_NAME, TRAIN_NAME, VAL_NAME, prepare_imagenet
from .mindrecord import write_mindrecord
from .unpack import unpack

ANY_MD5 = "any"


def prepare_cifar(
    layout: Layout,
    output_path: Path,
    *,
    archive: Path | None = None,
    md5: str | None = None,
    url: str | None = None,
) -> None:
    """Downloads (unless `archive` is given), checks and unpacks a data set, unless it is in place already.

    Args:
        layout: which data set.
        output_path: the folder that will hold its folder.
        archive: a copy of the archive on this machine; it is left as it is.
        md5: the archive's MD5 in hexadecimal, or "any" to leave it unchecked; None for the official one.
        url: where to download from; None for the official address.

    Raises:
        UserError: nothing was put in place, for the reason it gives.
    """
    md5, url = md5 or layout.md5, url or layout.url
    expected = None if md5 == ANY_MD5 else md5.lower()

    def fill(folder: Path) -> None:
        unpack(layout, archive, folder)
        try:
            train, _ = _read(layout, folder)
        except UserError as error:
            reason = str(error).replace(f"{folder}/", "")
            raise UserError(f"{archive} does not hold the whole data set: {reason}") from error
        if train.class_names != layout.official_classes:
            raise UserError(
                f"{archive} holds the classes {', '.join(train.class_names)}: it is not {layout.title}"
            )

    with locked(output_path / FOLDER_LOCK):
        if _existing(layout, output_path, layout.official_classes):
            _report(layout, output_path, "already in place, checked")
            return
        if archive is None:
            archive = _fetch_archive(output_path, expected, url)
        elif not archive.is_file():
            raise UserError(f"{archive} is not a file; give the archive of {url} as --archive")
        elif expected is not None and (found := checksum(archive, kind="md5")) != expected:
            raise UserError(
                f"{archive} has the MD5 {found}, expected {expected}; download it again, or give --md5 any "
                "if it was packed anew"
            )
        with new_folder(output_path / layout.folder_name) as folder:
            fill(folder)
        _report(layout, output_path, "unpacked and checked")


prepare_cifar10 = partial(prepare_cifar, CIFAR10)
prepare_cifar100 = partial(prepare_cifar, CIFAR100)


def _fetch_archive(output_path: Path, md5: str | None, url: str) -> Path:
    archive = output_path / url.rsplit("/", 1)[-1]
    if archive.is_file() and md5 in (None, checksum(archive, kind="md5")):
        print(f"{archive}: downloaded earlier")
    else:
        download(url, archive, md5=md5, mend="download it elsewhere and give it with --archive FILE")
        print(f"{archive}: downloaded; it is not needed any more once the data set is in place")
    return archive


def prepare_shapes(
    output_path: Path, *, seed: int = 0, train_images: int = 50_000, test_images: int = 10_000
) -> None:
    """Draws the shapes data set, unless the same one is in place already.

    Raises:
        UserError: nothing was put in place, for the reason it gives.
    """
    if seed < 0 or train_images < 1 or test_images < 1:
        raise UserError("--seed must be 0 or above, --train_images and --test_images 1 or above")

    def fill(folder: Path) -> None:
        train, test = (
            ImageSet(*shapes.draw_shapes(seed, split, count), shapes.CLASS_NAMES)
            for split, count in (("train", train_images), ("test", test_images))
        )
        write_cifar10(folder, train, test)

    with locked(output_path / FOLDER_LOCK):
        existing = _existing(CIFAR10, output_path, shapes.CLASS_NAMES)
        if existing is None:
            with new_folder(output_path / CIFAR10.folder_name) as folder:
                fill(folder)
            _report(CIFAR10, output_path, f"drawn with seed {seed}")
            return
        counts = [len(images) for images in existing]
        drawn, _ = shapes.draw_shapes(seed, "test", min(test_images, shapes.CHUNK))
        if counts != [train_images, test_images] or not np.array_equal(
            existing[1].images[: len(drawn)], drawn
        ):
            raise UserError(
                f"{output_path / CIFAR10.folder_name} holds shapes of another seed or number; "
                "remove it or choose another --output_path"
            )
        _report(CIFAR10, output_path, "already in place, checked")


def prepare_folder(images: Path, output_path: Path, *, test_fraction: float = 0.2, seed: int = 0) -> None:
    """Packs class folders of images; what cannot be read is named and passed over.

    Raises:
        UserError: nothing was put in place, for the reason it gives.
    """
    if seed < 0 or not 0 < test_fraction < 1:
        raise UserError("--seed must be 0 or above, and --test_fraction between 0 and 1")
    listing = list_folder(images, val_fraction=test_fraction, seed=seed, skip_unreadable=True)
    print(*listing.in_words(), sep="\n")
    with locked(output_path / FOLDER_LOCK):
        target = output_path / CIFAR10.folder_name
        with new_folder(target) as folder:
            skipped = pack_folder(listing, folder)
        for line in skipped:
            print(f"skipped {line}", file=sys.stderr)
        _report(CIFAR10, output_path, f"packed, {len(skipped)} unreadable files skipped")


def prepare_mindrecord(
    data_path: Path,
    output_path: Path,
    *,
    shards: int = 16,
    val_fraction: float = 0.1,
    seed: int = 0,
    damaged_images: Literal["fail", "skip"] = "fail",
) -> None:
    """Writes both splits of a folder of class folders into MindRecord shards.

    Args:
        data_path: see `open_splits`; so are `val_fraction` and `seed`. Each file is looked at first.
        output_path: the folder for the shards; those that are in place are kept.
        shards: of each split, at most.
        damaged_images: refuse a folder with damaged files, or leave them out and name them in the log.

    Raises:
        UserError: the data set is not complete, for the reason it gives.
    """
    if seed < 0 or not 0 < val_fraction < 1 or not 1 <= shards <= MAX_SHARDS:
        raise UserError(
            f"--seed must be 0 or above, --val_fraction between 0 and 1, --shards 1 to {MAX_SHARDS}"
        )
    skip = damaged_images == "skip"
    how = {"dataset": "folder", "val_fraction": val_fraction, "seed": seed, "skip_unreadable": skip}
    splits = dict(zip(SPLITS, open_splits(data_path, **how), strict=True))
    faults = faults_of([file for split in splits.values() for file in split.files], root=data_path)
    splits = without_faults(splits, faults, root=data_path, skip=skip)
    with locked(output_path / FOLDER_LOCK):
        write_mindrecord(splits, output_path, root=data_path, shards=shards)
    train, test = splits.values()
    print(
        f"{output_path}: written and read back: {len(train):,} training and {len(test):,} test images of "
        f"{len(train.class_names)} classes; use it with --data_path {output_path}"
    )


def prepare_samples(data_path: Path, output_path: Path, *, count: int = 8) -> None:
    """Writes the first `count` test images as OUTPUT_PATH/<number>_<class>.png, to try a model on.

    Raises:
        UserError: the data set is damaged, or the folder cannot be written.
    """
    test = WholePictures(open_split(data_path, "test"), skip=True, same_class=True)
    for number in range(min(count, len(test))):
        name = test.class_names[test.labels[number]].replace("/", "_")
        with atomic_path(output_path / f"{number:02d}_{name}.png") as temporary:
            Image.fromarray(test.read(number)).save(temporary)
    print(f"{output_path}: {min(count, len(test))} test images")


def _existing(
    layout: Layout, output_path: Path, class_names: tuple[str, ...]
) -> tuple[ImageSet, ImageSet] | None:
    """The splits in place, None where there are none; UserError where they are damaged or of another set."""
    target = output_path / layout.folder_name
    if is_free(target):
        return None
    try:
        train, test = _read(layout, target)
    except UserError as error:
        raise UserError(f"{target} is damaged, remove it and run this again: {error}") from error
    if train.class_names != class_names:
        raise UserError(
            f"{target} holds another data set ({', '.join(train.class_names[:3])}, ...); "
            "choose another --output_path"
        )
    return train, test


def _read(layout: Layout, folder: Path) -> tuple[ImageSet, ImageSet]:
    return read_set(layout, folder, "train"), read_set(layout, folder, "test")


def _report(layout: Layout, output_path: Path, done: str) -> None:
    train, test = _read(layout, output_path)
    print(
        f"{output_path / layout.folder_name}: {done}: {len(train):,} training and {len(test):,} test images "
        f"of {len(train.class_names)} classes; use it with --data_path {output_path}"
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    made = parser(__doc__)
    made.prog = "python -m src.data.prepare"
    commands = made.add_subparsers(dest="command", required=True)
    official = [
        commands.add_parser(layout.name, help=f"download, check and unpack {layout.title}")
        for layout in (CIFAR10, CIFAR100)
    ]
    for command in official:
        command.add_argument("--archive", type=Path, help="a copy of the archive; nothing is downloaded")
        command.add_argument("--md5", help='the MD5 of the archive if it is not the official one, or "any"')
    drawn = commands.add_parser("shapes", help="draw a data set of ten shapes; needs no download")
    drawn.add_argument("--train_images", type=int, default=50_000)
    drawn.add_argument("--test_images", type=int, default=10_000)
    folder = commands.add_parser("folder", help="pack class folders of your own images")
    folder.add_argument("images", type=Path, metavar="IMAGES", help=LAYOUT)
    folder.add_argument(
        "--test_fraction", type=float, default=0.2, help="of each class, where there is no test folder"
    )
    imagenet = commands.add_parser(
        "imagenet", help="arrange the official ILSVRC2012 archives in class folders"
    )
    imagenet.add_argument(
        "--archives",
        type=Path,
        required=True,
        help=f"the folder with {TRAIN_NAME}, {VAL_NAME} and {DEVKIT_NAME}; train or val can be absent",
    )
    imagenet.add_argument("--md5", choices=("check", "skip"), default="check", help="of the archives")
    imagenet.add_argument(
        "--val_labels",
        type=Path,
        help='in place of the devkit: lines "ILSVRC2012_val_00000001.JPEG n01751748"',
    )
    record = commands.add_parser("mindrecord", help="write class folders of images into MindRecord shards")
    record.add_argument("--data_path", type=Path, required=True, help=LAYOUT)
    record.add_argument("--shards", type=int, default=16, help="of each split, at most")
    record.add_argument(
        "--val_fraction", type=float, default=0.1, help="of each class, where there is no val or test folder"
    )
    record.add_argument("--damaged_images", choices=("fail", "skip"), default="fail")
    samples = commands.add_parser("samples", help="write some test images as PNG files")
    samples.add_argument("--data_path", type=Path, required=True)
    samples.add_argument("--count", type=int, default=8)
    for command in (drawn, folder, record):
        command.add_argument("--seed", type=int, default=0)
    for command in (*official, drawn, folder, imagenet, record, samples):
        command.add_argument("--output_path", type=Path, required=True)
    return made.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Raises:
        UserError: the command was not carried out, for the reason it gives.
    """
    options = vars(_parse(argv))
    command = {
        "cifar10": prepare_cifar10,
        "cifar100": prepare_cifar100,
        "shapes": prepare_shapes,
        "folder": prepare_folder,
        "imagenet": prepare_imagenet,
        "mindrecord": prepare_mindrecord,
        "samples": prepare_samples,
    }
    command[options.pop("command")](**options)
    return 0


if __name__ == "__main__":
    run(main)
