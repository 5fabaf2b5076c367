"""ImageNet (ILSVRC2012): the official archives into train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, checked.

Nothing but the images is written: the class archives are read from within the training archive, whose MD5 is
taken in the same pass. A wnid, such as n01440764, is the name of a class in WordNet.
"""

import hashlib
import io
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from tqdm import tqdm

from ...common.errors import UserError
from ...common.files import MARKER, checksum, is_free, new_folder
from ...common.lock import FOLDER_LOCK, locked
from ..folders import class_folders, find_in
from .fetch import BLOCK_BYTES
from .unpack import BROKEN

TRAIN_NAME = "ILSVRC2012_img_train.tar"
VAL_NAME = "ILSVRC2012_img_val.tar"
DEVKIT_NAME = "ILSVRC2012_devkit_t12.tar.gz"

_DEVKIT_DATA = "ILSVRC2012_devkit_t12/data"
_WNID = r"n\d{8}"
_VAL_IMAGE = r"ILSVRC2012_val_\d{8}\.JPEG"
_BUFFER_BYTES = 1 << 16  # of a tar stream: the rest of the buffer is copied at each read
_ROOM = 1.02  # what an unpacked archive takes on a disk with blocks of 4 KiB, relative to its size

Counts = dict[str, int]  # wnid -> images


@dataclass(frozen=True)
class Release:
    """What is known of the archives.

    Attributes:
        train_md5: of the training archive, in lower-case hexadecimal.
        val_md5: of the archive of validation images.
        devkit_md5: of the development kit.
        classes: their number.
        train_images: in all classes.
        train_a_class: the fewest and the most.
        val_a_class: the same in each class.
    """

    train_md5: str
    val_md5: str
    devkit_md5: str
    classes: int
    train_images: int
    train_a_class: tuple[int, int]
    val_a_class: int


ILSVRC2012 = Release(
    train_md5="1d675b47d978889d74fa0da5fadfb00e",
    val_md5="29b22e2961454d5413ddabcf34fc5622",
    devkit_md5="fa75699e90414af021442c21a62c3abf",
    classes=1000,
    train_images=1_281_167,
    train_a_class=(732, 1300),
    val_a_class=50,
)


class BadArchive(UserError):
    """An archive that is damaged or another one: what was unpacked of it is of no use."""


def prepare_imagenet(
    archives: Path,
    output_path: Path,
    *,
    md5: Literal["check", "skip"] = "check",
    val_labels: Path | None = None,
    release: Release = ILSVRC2012,
) -> None:
    """Unpacks the training and the validation images, unless they are in place already; either can be absent.

    `output_path/train` and `output_path/val` are whole or absent. What a killed run has unpacked of the
    training classes waits in a hidden folder for the next run with the same archive.

    Args:
        archives: the folder with the official archives; they are left as they are.
        output_path: the folder that will hold train and val.
        md5: whether the archives' MD5 are compared.
        val_labels: a text file with lines "ILSVRC2012_val_00000001.JPEG n01751748"; None reads the devkit.
        release: what is expected of the archives.

    Raises:
        UserError: there is nothing to unpack, too little space, an archive that is damaged or another one, or
            images that are in place and not of the expected numbers.
    """
    checks = md5 == "check"
    train, val = (_Split(name, archives, output_path, release, checks) for name in ("train", "val"))
    with locked(output_path / FOLDER_LOCK):
        counts = {
            split.name: split.count(split.target) for split in (train, val) if not is_free(split.target)
        }
        done = "already in place, checked"
        missing = [split for split in (train, val) if split.name not in counts]
        ready = [split for split in missing if split.archive.is_file()]
        absent = [f"{split.archive} is not there" for split in missing if split not in ready]
        if val in ready and not (val_labels or (archives / DEVKIT_NAME).is_file()):
            ready.remove(val)
            absent.append(f"{archives / DEVKIT_NAME} with the labels of val is not there, nor --val_labels")
        if not counts and not ready:
            raise UserError(f"{'; '.join(absent)}: download the official archives to {archives}")
        for line in absent:
            print(f"skipped: {line}", file=sys.stderr)
        if ready:
            done = "unpacked and checked"
            _check_space(output_path, sum(split.bytes_to_come() for split in ready))
        if val in ready:  # before train: what is wrong is said after a minute, not after an hour
            labels = (
                _read_labels(val_labels)
                if val_labels
                else _read_devkit(archives, release.devkit_md5 if checks else None)
            )
            with new_folder(val.target) as folder:
                _unpack_val(val, labels, folder)
        if train in ready:
            _unpack_train(train)
        counts.update((split.name, split.count(split.target)) for split in ready)
    _compare_classes(output_path, counts)
    print(f"{output_path}: {done}: {_summary(counts, output_path)}")


class _Split:
    """Train or val: its archive, its folder and what is expected of both.

    Attributes:
        name: "train" or "val".
        archive: the tar file.
        target: the folder for the classes.
        unfinished: where training classes are gathered; another archive has another folder.
        md5: of the archive, None where it is not compared.
        classes: their number.
        images: in all classes.
        a_class: the fewest and the most.
    """

    def __init__(self, name: str, archives: Path, output_path: Path, release: Release, checks: bool) -> None:
        is_train = name == "train"
        self.name = name
        self.archive = archives / (TRAIN_NAME if is_train else VAL_NAME)
        self.target = output_path / name
        self.md5 = (release.train_md5 if is_train else release.val_md5) if checks else None
        self.classes = release.classes
        self.images = release.train_images if is_train else release.classes * release.val_a_class
        self.a_class = release.train_a_class if is_train else (release.val_a_class, release.val_a_class)

    @property
    def unfinished(self) -> Path:
        stat = self.archive.stat()
        return self.target.with_name(f".quartet-{self.name}-{stat.st_size}-{stat.st_mtime_ns}")

    def bytes_to_come(self) -> int:
        """On the disk, without the classes of an unfinished run."""
        finished = len(class_folders(self.unfinished)) if self.unfinished.exists() else 0
        return round(_ROOM * self.archive.stat().st_size * max(1 - finished / self.classes, 0))

    def count(self, folder: Path) -> Counts:
        """Counts the images of each class. Raises BadArchive where they are not as many as expected."""
        counts = {name: len(find_in(folder / name).files) for name in class_folders(folder)}
        low, high = self.a_class
        wanted = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        mend = f"remove {folder} and run this again"
        if folder != self.target:  # just unpacked
            mend = f"check {self.archive}{' and its labels' if self.name == 'val' else ''}"
        for name, count in counts.items():
            if not low <= count <= high:
                raise BadArchive(f"{self.target / name}: {count:,} images, expected {wanted}; {mend}")
        for what, found, expected in (
            ("classes", len(counts), self.classes),
            ("images", sum(counts.values()), self.images),
        ):
            if found != expected:
                raise BadArchive(f"{self.target}: {found:,} {what}, expected {expected:,}; {mend}")
        return counts


def _check_space(output_path: Path, needed: int) -> None:
    free = shutil.disk_usage(output_path).free
    if free < needed:
        raise UserError(
            f"{output_path} has {free / 1e9:,.1f} GB free, the images need {needed / 1e9:,.1f} GB; "
            "free space or choose another --output_path"
        )


def _unpack_train(split: _Split) -> None:
    unfinished = split.unfinished
    try:
        for stale in unfinished.parent.glob(f".quartet-{split.name}-*"):
            if stale != unfinished and (stale / MARKER).is_file():
                shutil.rmtree(stale, ignore_errors=True)
        unfinished.mkdir(exist_ok=True)
        (unfinished / MARKER).touch()
        with _reading(split.archive, split.md5) as tar:
            for member in tqdm(tar, desc="train", total=split.classes, unit="class", disable=None):
                wnid = _checked_name(member, rf"{_WNID}\.tar", split.archive).removesuffix(".tar")
                if not (unfinished / wnid).is_dir():
                    with tar.extractfile(member) as file, new_folder(unfinished / wnid) as folder:
                        _unpack_class(file, split.archive, wnid, folder)
        split.count(unfinished)
    except BadArchive:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(split.target)
    (split.target / MARKER).unlink()


def _unpack_class(file: BinaryIO, archive: Path, wnid: str, folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="r|", bufsize=_BUFFER_BYTES) as tar:
        for member in tar:
            name = _checked_name(member, rf"{wnid}_\d+\.JPEG", f"{wnid}.tar in {archive}")
            (folder / name).write_bytes(tar.extractfile(member).read())


def _unpack_val(split: _Split, labels: dict[str, str], folder: Path) -> None:
    with _reading(split.archive, split.md5) as tar:
        for wnid in set(labels.values()):
            (folder / wnid).mkdir()
        for member in tqdm(tar, desc="val", total=split.images, unit="image", disable=None):
            name = _checked_name(member, _VAL_IMAGE, split.archive)
            if name not in labels:
                raise UserError(f"{name} of {split.archive} has no label; use the labels of ILSVRC2012")
            (folder / labels[name] / name).write_bytes(tar.extractfile(member).read())
    split.count(folder)


@contextmanager
def _reading(archive: Path, md5: str | None) -> Iterator[tarfile.TarFile]:
    """A tar archive, to be read forwards; its MD5 is compared at the end, None can jump over members."""
    try:
        file = archive.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {archive}: {error.strerror}; check its permissions") from error
    try:
        with file:
            hashed = _Hashed(file)
            stream = {"fileobj": hashed, "mode": "r|"} if md5 else {"fileobj": file, "mode": "r:"}
            with tarfile.open(**stream, bufsize=_BUFFER_BYTES) as tar:
                yield tar
            if md5:
                while hashed.read(BLOCK_BYTES):
                    pass
                _compare_md5(archive, hashed.md5.hexdigest(), md5)
    except BROKEN as error:
        raise BadArchive(f"{archive} is damaged or cut short ({error}); download it again") from error


class _Hashed:
    """A file that is read once from its beginning, and the MD5 of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.md5.update(data)
        return data


def _compare_md5(archive: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BadArchive(
            f"{archive} has the MD5 {found}, expected {expected}; download it again, or give --md5 skip "
            "if it was packed anew"
        )


def _checked_name(member: tarfile.TarInfo, pattern: str, archive: Path | str) -> str:
    if not (member.isfile() and re.fullmatch(pattern, member.name, re.ASCII)):
        raise BadArchive(
            f"{archive} has the member {member.name!r}, not one of ILSVRC2012; take the official archive"
        )
    return member.name


def _read_labels(path: Path) -> dict[str, str]:
    """The wnid of each validation image, of a text file with the name and the wnid in each line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}); give a text file as --val_labels") from error
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(rf"{_VAL_IMAGE}\s+{_WNID}\s*", line, re.ASCII):
            raise UserError(
                f"{path}, line {number}: {line[:60]!r}; 'ILSVRC2012_val_00000001.JPEG n01751748' is needed"
            )
    return dict(line.split() for line in lines)


def _read_devkit(archives: Path, md5: str | None) -> dict[str, str]:
    """The wnid of each validation image: a class number a line, and the wnid of each number in meta.mat."""
    from scipy.io import loadmat  # it is needed here alone

    devkit = archives / DEVKIT_NAME
    if md5:
        _compare_md5(devkit, checksum(devkit, kind="md5"), md5)
    try:
        with tarfile.open(devkit, "r:gz") as tar:
            numbers, meta = (
                tar.extractfile(f"{_DEVKIT_DATA}/{name}").read()
                for name in ("ILSVRC2012_validation_ground_truth.txt", "meta.mat")
            )
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
        wnids = {int(number): str(wnid) for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"])}
        return {
            f"ILSVRC2012_val_{number:08d}.JPEG": wnids[int(label)]
            for number, label in enumerate(numbers.split(), 1)
        }
    except (*BROKEN, OSError, LookupError, ValueError) as error:
        raise BadArchive(
            f"{devkit} is damaged or not the devkit of ILSVRC2012 ({error}); download it again"
        ) from error


def _compare_classes(output_path: Path, counts: dict[str, Counts]) -> None:
    if len(counts) == 2 and (differing := set(counts["train"]) ^ set(counts["val"])):
        name = min(differing)
        raise UserError(
            f"{output_path}: the class {name} is in {'train' if name in counts['train'] else 'val'} alone; "
            "remove val and run this again with the labels of ILSVRC2012"
        )


def _summary(counts: dict[str, Counts], output_path: Path) -> str:
    titles = {"train": "training", "val": "validation"}
    parts = [f"{sum(counts[name].values()):,} {titles[name]}" for name in titles if name in counts]
    classes = len(next(iter(counts.values())))
    use = f"use it with --data_path {output_path}"
    if "train" not in counts:
        use = f"training images are not there, give {TRAIN_NAME} before you use it"
    return f"{' and '.join(parts)} images of {classes:,} classes; {use}"
