# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100: the official archive, downloaded or brought, checked and unpacked."""

import shutil
from pathlib import Path
from typing import Literal

from ...common.archive import compare_md5, reading
from ...common.errors import UserError
from ...common.files import checksum, is_free, new_folder, working_in
from ..binary import SIZES_NAME, ImageSet, Layout, read_set, write_notes
from .fetch import download


def prepare_cifar(
    layout: Layout,
    output_path: Path,
    *,
    archive: Path | None = None,
    md5: Literal["check", "skip"] = "check",
    url: str | None = None,
) -> None:
    """Downloads (unless `archive` is given), checks and unpacks a data set, unless it is in place already.

    Args:
        layout: which data set.
        output_path: the folder that will hold its folder.
        archive: a copy of the archive on this machine; it is left as it is.
        md5: whether the MD5 of the archive is compared with the official one.
        url: where to download from; None for the official address.

    Raises:
        UserError: nothing was put in place, for the reason it gives.
    """
    expected, url = layout.md5 if md5 == "check" else None, url or layout.url
    target = output_path / layout.folder_name
    with working_in(output_path):
        if not is_free(target):
            report(target, *read_existing(layout, target, layout.classes), "already in place, checked")
            return
        if archive is None:
            archive = _fetch(output_path, expected, url)
        elif not archive.is_file():
            raise UserError(f"{archive} is not a file; give the archive of {url} as --archive")
        elif expected is not None:
            compare_md5(archive, checksum(archive, kind="md5"), expected)
        with new_folder(target) as folder:
            train, test = _unpack(layout, archive, folder)
        report(target, train, test, "unpacked and checked")


def read_existing(layout: Layout, target: Path, class_names: tuple[str, ...]) -> tuple[ImageSet, ImageSet]:
    """The training and test images in place. Raises UserError where they are damaged or of another set."""
    try:
        train, test = read_set(layout, target, "train"), read_set(layout, target, "test")
    except UserError as error:
        raise UserError(
            f"{target} is damaged or of others; remove it, or choose another --output_path: {error}"
        ) from error
    if train.class_names != class_names:
        raise UserError(
            f"{target} holds another data set ({', '.join(train.class_names[:3])}, ...); "
            "choose another --output_path"
        )
    return train, test


def report(target: Path, train: ImageSet, test: ImageSet, done: str) -> None:
    """Says what is in place."""
    print(
        f"{target}: {done}: {len(train):,} training and {len(test):,} test images "
        f"of {len(train.class_names)} classes; use it with --data_path {target.parent}"
    )


def _fetch(output_path: Path, md5: str | None, url: str) -> Path:
    archive = output_path / url.rsplit("/", 1)[-1]
    if archive.is_file() and md5 in (None, checksum(archive, kind="md5")):
        print(f"{archive}: downloaded earlier")
    else:
        download(url, archive, md5=md5, mend="download it elsewhere and give it with --archive FILE")
        print(f"{archive}: downloaded; it is not needed any more once the data set is in place")
    return archive


def _unpack(layout: Layout, archive: Path, folder: Path) -> tuple[ImageSet, ImageSet]:
    """Copies the data set's files out of an archive, whatever folder they are in there, and reads them."""
    try:
        with reading(archive) as members:
            for path, file in members:
                if path.suffix == ".bin" or path.name in (layout.classes_name, SIZES_NAME):
                    with (folder / path.name).open("xb") as target:
                        shutil.copyfileobj(file, target)
    except FileExistsError as error:
        raise UserError(f"{archive} holds two files named {path.name}; pack one data set again") from error
    except OSError as error:
        raise UserError(
            f"cannot unpack {archive} into {folder.parent}: {error.strerror or error}; "
            "free space or choose another folder"
        ) from error
    if not (folder / layout.classes_name).is_file():
        raise UserError(
            f"{archive} holds no {layout.classes_name}: it is not the binary version of {layout.title} "
            f"({layout.url.rsplit('/', 1)[-1]}), which is needed"
        )
    try:
        train, test = read_set(layout, folder, "train"), read_set(layout, folder, "test")
    except UserError as error:
        reason = str(error).replace(f"{folder}/", "")
        raise UserError(f"{archive} does not hold the whole data set: {reason}") from error
    if train.class_names != layout.classes:
        raise UserError(
            f"{archive} holds the classes {', '.join(train.class_names)}: it is not {layout.title}"
        )
    write_notes(layout, folder)
    return train, test
