# SPDX-License-Identifier: Apache-2.0
"""ImageNet (ILSVRC2012): the official archives into train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, checked.

Nothing but the images is written: the class archives are read from within the training archive, whose MD5 is
taken in the same pass. A wnid, such as n01440764, is the name of a class in WordNet.
"""

import hashlib
import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from tqdm import tqdm

from ...common.archive import DamagedArchive, Member, compare_md5, reading
from ...common.errors import UserError
from ...common.files import (
    checksum,
    discard_unfinished,
    is_free,
    new_folder,
    read_text,
    unfinished_folder,
    unfinished_path,
    working_in,
)
from ..folders import class_folders, find_in

TRAIN_NAME = "ILSVRC2012_img_train.tar"
VAL_NAME = "ILSVRC2012_img_val.tar"
DEVKIT_NAME = "ILSVRC2012_devkit_t12.tar.gz"

_WNID = r"n\d{8}"
_VAL_IMAGE = r"ILSVRC2012_val_\d{8}\.JPEG"
_ROOM = 1.02  # what an unpacked archive takes on a disk with blocks of 4 KiB, relative to its size

Counts = dict[str, int]  # wnid -> images


@dataclass(frozen=True)
class Release:
    """What is known of the archives.

    Attributes:
        md5: of each archive by its name, in lower-case hexadecimal.
        classes: their number.
        train_images: in all classes.
        val_a_class: validation images in each class.
    """

    md5: dict[str, str]
    classes: int
    train_images: int
    val_a_class: int


ILSVRC2012 = Release(
    md5={
        TRAIN_NAME: "1d675b47d978889d74fa0da5fadfb00e",
        VAL_NAME: "29b22e2961454d5413ddabcf34fc5622",
        DEVKIT_NAME: "fa75699e90414af021442c21a62c3abf",
    },
    classes=1000,
    train_images=1_281_167,
    val_a_class=50,
)


def prepare_imagenet(
    data_path: Path,
    output_path: Path,
    *,
    md5: Literal["check", "skip"] = "check",
    val_labels: Path | None = None,
    release: Release = ILSVRC2012,
) -> None:
    """Unpacks the training and the validation images, unless they are in place already; either can be absent.

    `output_path/train` and `output_path/val` are whole or absent. The training classes that a stopped run has
    unpacked wait in a hidden folder of output_path for the next run with the same archive.

    Args:
        data_path: the folder with the official archives; they are left as they are.
        output_path: the folder that will hold train and val.
        md5: whether the archives' MD5 are compared.
        val_labels: a text file with lines "ILSVRC2012_val_00000001.JPEG n01751748"; None reads the devkit.
        release: what is expected of the archives.

    Raises:
        UserError: there is nothing to unpack, too little space, an archive that is damaged or another one, or
            images that are in place and not of the expected numbers.
    """
    work = _Work(data_path, output_path, release, md5 == "check")
    archives = {"train": data_path / TRAIN_NAME, "val": data_path / VAL_NAME}
    with working_in(output_path):
        done = "already in place, checked"
        counts = {
            name: work.count(output_path / name) for name in archives if not is_free(output_path / name)
        }
        ready = [name for name in archives if name not in counts and archives[name].is_file()]
        absent = [f"{archives[name]} is not there" for name in archives if name not in [*counts, *ready]]
        if "val" in ready and not (val_labels or (data_path / DEVKIT_NAME).is_file()):
            ready.remove("val")
            absent.append(f"{data_path / DEVKIT_NAME} with the labels of val is not there, nor --val_labels")
        if not counts and not ready:
            raise UserError(f"{'; '.join(absent)}: download the official archives to {data_path}")
        for line in absent:
            print(f"skipped: {line}", file=sys.stderr)
        if ready:
            done = "unpacked and checked"
            work.check_space([archives[name] for name in ready])
        if "val" in ready:  # before train: what is wrong is said after a minute, not after an hour
            counts["val"] = work.unpack_val(_read_labels(val_labels) if val_labels else work.read_devkit())
        if "train" in ready:
            counts["train"] = work.unpack_train()
    if len(counts) == 2 and (differing := set(counts["train"]) ^ set(counts["val"])):
        name = min(differing)
        raise UserError(
            f"{output_path}: the class {name} is in {'train' if name in counts['train'] else 'val'} alone; "
            "remove val and run this again with the labels of ILSVRC2012"
        )
    found = [f"{sum(counts[name].values()):,} images in {name}" for name in archives if name in counts]
    use = f"use it with --data_path {output_path}"
    if "train" not in counts:
        use = f"training images are not there, give {TRAIN_NAME} before you use it"
    print(f"{output_path}: {done}: {' and '.join(found)}, of {work.release.classes:,} classes; {use}")


@dataclass(frozen=True)
class _Work:
    """One call: where from, where to, what is expected, and whether MD5s are compared."""

    data_path: Path
    output_path: Path
    release: Release
    checks: bool

    def count(self, folder: Path, mend: str = "") -> Counts:
        """The images of each class of train or val. Raises DamagedArchive for other numbers than expected."""
        release, is_val = self.release, folder.name == "val"
        mend = mend or f"remove {folder} and run this again"
        counts = {name: len(find_in(folder / name).files) for name in class_folders(folder)}
        for name, count in counts.items() if is_val else ():
            if count != release.val_a_class:
                raise DamagedArchive(
                    f"{folder / name}: {count:,} images, expected {release.val_a_class}; {mend}"
                )
        images = release.classes * release.val_a_class if is_val else release.train_images
        expected = {"classes": (len(counts), release.classes), "images": (sum(counts.values()), images)}
        for what, (found, wanted) in expected.items():
            if found != wanted:
                raise DamagedArchive(f"{folder}: {found:,} {what}, expected {wanted:,}; {mend}")
        return counts

    def check_space(self, archives: list[Path]) -> None:
        """Raises UserError where the disk has no room for what is still to be unpacked."""
        needed = {path.name: _ROOM * path.stat().st_size for path in archives}
        unfinished = unfinished_path(self.output_path / "train")
        if unfinished.is_dir() and TRAIN_NAME in needed:
            needed[TRAIN_NAME] *= 1 - len(class_folders(unfinished)) / self.release.classes
        needed = sum(needed.values())
        free = shutil.disk_usage(self.output_path).free
        if free < needed:
            raise UserError(
                f"{self.output_path} has {free / 1e9:,.1f} GB free, the images need {needed / 1e9:,.1f} GB; "
                "free space or choose another --output_path"
            )

    def unpack_val(self, labels: dict[str, str]) -> Counts:
        """Fills val, whole or not at all."""
        archive = self.data_path / VAL_NAME
        with new_folder(self.output_path / "val") as folder:
            for wnid in set(labels.values()):
                (folder / wnid).mkdir()
            with self.reading(archive) as images:
                for path, file in tqdm(images, desc="val", total=len(labels), unit="image", disable=None):
                    name = _checked(path, _VAL_IMAGE, archive)
                    if name not in labels:
                        raise UserError(f"{name} of {archive} has no label; use the labels of ILSVRC2012")
                    (folder / labels[name] / name).write_bytes(file.read())
            return self.count(folder, f"check {archive} and its labels")

    def unpack_train(self) -> Counts:
        """Fills train; a stopped call is gone on with, and a damaged archive leaves nothing."""
        archive, target = self.data_path / TRAIN_NAME, self.output_path / "train"
        source = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        try:
            with unfinished_folder(target, source) as unfinished:
                with self.reading(archive) as classes:
                    for path, file in tqdm(
                        classes, "train", self.release.classes, unit="class", disable=None
                    ):
                        wnid = _checked(path, rf"{_WNID}\.tar", archive).removesuffix(".tar")
                        if wnid not in unfinished.done:
                            _unpack_class(f"{path} in {archive}", file, unfinished.folder / wnid)
                            unfinished.finish(wnid)
                return self.count(unfinished.folder, f"check {archive}")
        except DamagedArchive:
            discard_unfinished(target)
            raise

    @contextmanager
    def reading(self, archive: Path) -> Iterator[Iterator[Member]]:
        """Gives the members of an archive. Its MD5 is taken in the same pass, and compared at the end."""
        if not self.checks:
            with reading(archive) as members:
                yield members
            return
        with archive.open("rb") as file:
            hashed = _Hashed(file)
            with reading(archive, hashed) as members:
                yield members
            while hashed.read(1 << 20):
                pass
        compare_md5(archive, hashed.md5.hexdigest(), self.release.md5[archive.name])

    def read_devkit(self) -> dict[str, str]:
        """The wnid of each validation image: a class number a line, and the wnid of each in meta.mat."""
        from scipy.io import loadmat  # it is needed here alone

        devkit = self.data_path / DEVKIT_NAME
        try:
            if self.checks:
                compare_md5(devkit, checksum(devkit, kind="md5"), self.release.md5[DEVKIT_NAME])
            with reading(devkit) as members:
                data = {path.name: file.read() for path, file in members if path.parent.name == "data"}
            synsets = loadmat(io.BytesIO(data["meta.mat"]), squeeze_me=True)["synsets"]
            leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
            wnids = {int(number): str(wnid) for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"])}
            return {
                f"ILSVRC2012_val_{number:08d}.JPEG": wnids[int(label)]
                for number, label in enumerate(data["ILSVRC2012_validation_ground_truth.txt"].split(), 1)
            }
        except (OSError, LookupError, ValueError) as error:
            raise DamagedArchive(
                f"{devkit} is damaged or not the devkit of ILSVRC2012 ({error}); download it again"
            ) from error


def _unpack_class(archive: str, stream: IO[bytes], folder: Path) -> None:
    """Writes the images of a class, over what a stopped call has left."""
    folder.mkdir(exist_ok=True)
    with reading(archive, stream) as images:
        for path, file in images:
            (folder / _checked(path, rf"{folder.name}_\d+\.JPEG", archive)).write_bytes(file.read())


class _Hashed:
    """A file that is read once from its beginning, and the MD5 of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.md5.update(data)
        return data


def _checked(path: Path, pattern: str, archive: Path | str) -> str:
    """The name of a member, which must be alone and match."""
    if not re.fullmatch(pattern, str(path), re.ASCII):
        raise DamagedArchive(
            f"{archive} has the member {str(path)!r}, not one of ILSVRC2012; take the official archive"
        )
    return path.name


def _read_labels(path: Path) -> dict[str, str]:
    """The wnid of each validation image, of a text file with the name and the wnid in each line."""
    lines = read_text(path, "give a text file as --val_labels").splitlines()
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(rf"{_VAL_IMAGE}\s+{_WNID}\s*", line, re.ASCII):
            raise UserError(
                f"{path}, line {number}: {line[:60]!r}; 'ILSVRC2012_val_00000001.JPEG n01751748' is needed"
            )
    return dict(line.split() for line in lines)
