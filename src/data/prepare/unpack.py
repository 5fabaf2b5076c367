"""Unpacking an archive of a binary layout: only the files it is known by, and nothing else."""

import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path

from ...common.archive import check_member
from ...common.errors import UserError
from ..binary import SIZES_NAME, Layout

BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def unpack(layout: Layout, archive: str | os.PathLike, folder: Path) -> None:
    """Copies the data set's files out of a tar archive (plain, gz, bz2, xz) into `folder`.

    The folders inside the archive do not matter, and what is not of the data set is left out. An archive with
    a link, a device or a path that leaves the archive is refused as a whole.

    Raises:
        UserError: the archive is damaged, cut short, of something else or has such a member; a full disk.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                path = check_member(str(archive), member.name, is_plain=member.isfile() or member.isdir())
                if member.isfile() and _is_known(layout, path.name):
                    _copy(tar, member, folder / path.name, archive)
    except BROKEN as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{archive} is damaged, cut short or not a tar archive ({reason}); download it again"
        ) from error
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


def _is_known(layout: Layout, name: str) -> bool:
    known = (layout.classes_name, SIZES_NAME, layout.test_name)
    return name in known or layout.train_name.fullmatch(name) is not None


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: str | os.PathLike) -> None:
    with tar.extractfile(member) as source:
        try:
            file = target.open("xb")
        except FileExistsError as error:
            raise UserError(f"{archive} holds two files named {target.name}; re-pack one data set") from error
        with file:
            shutil.copyfileobj(source, file)
