# SPDX-License-Identifier: Apache-2.0
"""Archives of unknown origin: plain files that stay inside their folder, and no absurd sizes."""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from .errors import UserError

# Deflate cannot shrink more than 1032 to 1; pictures hardly shrink at all.
MAX_RATIO = 200
SMALL_BYTES = 100 << 20

_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, NotImplementedError),
)
_BUFFER_BYTES = 1 << 16  # of a tar stream: the rest of the buffer is copied at each read


class DamagedArchive(UserError):
    """It is damaged, no archive, or holds what no data set holds. What was unpacked of it is of no use."""


Member = tuple[
    PurePosixPath, IO[bytes]
]  # path in an archive; what it is read from until the next is asked for


def compare_md5(archive: Path, found: str, expected: str) -> None:
    """Raises DamagedArchive where an archive is not the official one."""
    if found != expected:
        raise DamagedArchive(
            f"{archive} has the MD5 {found}, expected {expected}; download it again, or give --md5 skip if "
            "it was packed anew"
        )


@contextmanager
def reading(archive: Path | str, stream: IO[bytes] | None = None) -> Iterator[Iterator[Member]]:
    """Gives the files of an archive, one after the other. The block is for reading them alone.

    Args:
        archive: a .zip, or a tar archive (plain, gz, bz2, xz).
        stream: a plain tar archive, read forwards; `archive` is then its name in messages.

    Raises:
        DamagedArchive: it is damaged, cut short, encrypted or no archive, whenever that is found; it unpacks
            to more than MAX_RATIO times its size; two files have one path; a member is a link or a device, or
            its path leaves the folder.
        OSError: it cannot be opened.
    """
    try:
        if stream is not None:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER_BYTES) as tar:
                yield _tar_members(tar, _Checks(archive, None))
            return
        checks = _Checks(archive, max(MAX_RATIO * Path(archive).stat().st_size, SMALL_BYTES))
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                yield _zip_members(file, checks)
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield _tar_members(tar, checks)
                while tar.fileobj.read(1 << 20):  # the checksum of a compressed file is at its end
                    pass
    except _BROKEN as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DamagedArchive(
            f"{archive} is damaged, cut short or no .zip or tar archive ({reason}); get it again"
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Writes all files of an archive into `folder`, which is made.

    Raises:
        UserError: as `reading`, or it cannot be read, or the folder written. What was unpacked stays.
    """
    try:
        with reading(archive) as members:
            for path, member in members:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(member, file)
    except OSError as error:
        raise UserError(f"cannot unpack {archive} to {folder}: {error.strerror or error}") from error


class _Checks:
    """What must hold of the members of an archive. Raises DamagedArchive."""

    def __init__(self, archive: Path | str, most: int | None) -> None:
        self.archive, self.most, self.total, self.paths = archive, most, 0, set()

    def __call__(self, name: str, size: int, *, is_file: bool, is_folder: bool) -> PurePosixPath:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not (is_file or is_folder):
            raise DamagedArchive(
                f"{self.archive} has the member {name!r}, a link, a device or a path that leaves it; take "
                "the archive from its official address, or pack it again from plain files"
            )
        if is_file and path in self.paths:
            raise DamagedArchive(f"{self.archive} has two members named {name!r}; pack it again")
        self.paths.add(path)
        self.total += size
        if self.most is not None and self.total > self.most:
            raise DamagedArchive(
                f"{self.archive} would unpack to {self.total:,} bytes or more, over {MAX_RATIO} times "
                "its size: it is no data set"
            )
        return path


def _tar_members(tar: tarfile.TarFile, check: _Checks) -> Iterator[Member]:
    for member in tar:
        path = check(member.name, member.size, is_file=member.isfile(), is_folder=member.isdir())
        if member.isfile():
            with tar.extractfile(member) as file:
                yield path, file


def _zip_members(whole: zipfile.ZipFile, check: _Checks) -> Iterator[Member]:
    """All members are looked at before the first is read."""
    files = []
    for member in whole.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        is_file = not member.is_dir() and kind in (0, stat.S_IFREG)
        is_folder = member.is_dir() and kind in (0, stat.S_IFDIR)
        path = check(member.filename, member.file_size, is_file=is_file, is_folder=is_folder)
        if member.flag_bits & 1:
            raise DamagedArchive(f"{check.archive} is encrypted; pack it again without a password")
        if is_file:
            files.append((path, member))
    for path, member in files:
        with whole.open(member) as file:
            yield path, file
