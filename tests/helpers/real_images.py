# SPDX-License-Identifier: Apache-2.0
"""The real data set that QUARTET_DATA names, or the beginning of it."""

import os
from pathlib import Path

from src.data.binary import CIFAR10, ImageSet, read_set, write_cifar10


def write_first(folder: Path, *, train: int, test: int) -> None:
    """Writes a data set of the first so many real images into an existing folder."""
    sets = []
    for split, count in (("train", train), ("test", test)):
        real = read_set(CIFAR10, Path(os.environ["QUARTET_DATA"]), split)
        sets.append(ImageSet(real.images[:count], real.labels[:count], real.class_names))
    write_cifar10(folder, *sets)
