# SPDX-License-Identifier: Apache-2.0
"""Prepares a data set: in the CIFAR-10 binary layout, CIFAR-100 in its own, ImageNet in class folders.

    python -m src.data.prepare cifar10  --output_path data [--archive FILE] [--md5 skip]
    python -m src.data.prepare cifar100 --output_path data [--archive FILE] [--md5 skip]
    python -m src.data.prepare shapes   --output_path DIR [--seed 0] [--train_images N] [--test_images N]
    python -m src.data.prepare folder   --data_path FOLDER --output_path DIR [--val_fraction 0.1] [--seed 0]
    python -m src.data.prepare imagenet --data_path FOLDER --output_path DIR [--md5 skip] [--val_labels FILE]
    python -m src.data.prepare mindrecord --data_path FOLDER --output_path DIR [--shards 16]
        [--damaged_images skip] [--val_fraction 0.1] [--seed 0]
    python -m src.data.prepare samples  --data_path DIR --output_path FOLDER [--count 8]

The data set is then DIR/cifar-10-batches-bin, DIR/cifar-100-binary or DIR/train and DIR/val; give DIR as
data_path. `folder` packs images at 32x32; damaged ones are named and left out. To train on larger ones, use
the folder as it is. `imagenet` unpacks the official ILSVRC2012 archives that you brought. `mindrecord` writes
class folders of images, compressed as they are, into MindRecord shards; run it again to go on after a stop.
`samples` writes test images as PNG.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from ...common.cli import parser
from ...common.files import atomic_path
from ..binary import CIFAR10, CIFAR100
from ..damage import ReadablePictures
from ..sources import open_split
from ..splits import LAYOUT
from .cifar import prepare_cifar
from .folder import prepare_folder
from .imagenet import DEVKIT_NAME, TRAIN_NAME, VAL_NAME, prepare_imagenet
from .mindrecord import prepare_mindrecord
from .shapes import prepare_shapes


def prepare_samples(data_path: Path, output_path: Path, *, count: int = 8) -> None:
    """Writes the first `count` test images as OUTPUT_PATH/<number>_<class>.png, to try a model on.

    Raises:
        UserError: the data set is damaged, or the folder cannot be written.
    """
    test = ReadablePictures(open_split(data_path, "test"), skip=True, same_class=True)
    for number in range(min(count, len(test))):
        name = test.class_names[test.labels[number]].replace("/", "_")
        with atomic_path(output_path / f"{number:02d}_{name}.png") as temporary:
            Image.fromarray(test.read(number)).save(temporary)
    print(f"{output_path}: {min(count, len(test))} test images")


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
    drawn = commands.add_parser("shapes", help="draw a data set of ten shapes; needs no download")
    drawn.add_argument("--train_images", type=int, default=50_000, help="training images (50000)")
    drawn.add_argument("--test_images", type=int, default=10_000, help="test images (10000)")
    folder = commands.add_parser("folder", help="pack class folders of your own images")
    folder.add_argument("--data_path", type=Path, required=True, help=LAYOUT.removesuffix(", is needed"))
    imagenet = commands.add_parser(
        "imagenet", help="arrange the official ILSVRC2012 archives in class folders"
    )
    imagenet.add_argument(
        "--data_path",
        type=Path,
        required=True,
        help=f"the folder with {TRAIN_NAME}, {VAL_NAME} and {DEVKIT_NAME}; train or val can be absent",
    )
    imagenet.add_argument(
        "--val_labels",
        type=Path,
        help='in place of the devkit: lines "ILSVRC2012_val_00000001.JPEG n01751748"',
    )
    record = commands.add_parser("mindrecord", help="write class folders of images into MindRecord shards")
    record.add_argument("--data_path", type=Path, required=True, help=LAYOUT.removesuffix(", is needed"))
    record.add_argument("--shards", type=int, default=16, help="largest number of shards of each split (16)")
    record.add_argument(
        "--damaged_images",
        choices=("fail", "skip"),
        default="fail",
        help="a damaged image; fail: nothing is put in place; skip: it is left out",
    )
    samples = commands.add_parser("samples", help="write some test images as PNG files")
    samples.add_argument("--data_path", type=Path, required=True, help="folder of the data set")
    samples.add_argument("--count", type=int, default=8, help="images to write (8)")
    for command in (folder, record):
        command.add_argument(
            "--val_fraction",
            type=float,
            default=0.1,
            help="share of each class held out for testing, if there is no folder val or test (0.1)",
        )
        command.add_argument(
            "--seed", type=int, default=0, help="seed that chooses the images held out, as split_seed (0)"
        )
    for command in (*official, imagenet):
        command.add_argument(
            "--md5",
            choices=("check", "skip"),
            default="check",
            help="compare the archives with the official MD5",
        )
    drawn.add_argument("--seed", type=int, default=0, help="seed of the drawing (0)")
    for command in (*official, drawn, folder, imagenet, record, samples):
        command.add_argument("--output_path", type=Path, required=True, help="folder to write")
    return made.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Raises:
        UserError: the command was not carried out, for the reason it gives.
    """
    options = vars(_parse(argv))
    command = {
        "cifar10": partial(prepare_cifar, CIFAR10),
        "cifar100": partial(prepare_cifar, CIFAR100),
        "shapes": prepare_shapes,
        "folder": prepare_folder,
        "imagenet": prepare_imagenet,
        "mindrecord": prepare_mindrecord,
        "samples": prepare_samples,
    }
    command[options.pop("command")](**options)
    return 0
