"""Unpacking a .zip of unknown origin: nothing outside the folder, no links, no absurd sizes, whole or not."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path

from ...common.archive import check_member
from ...common.errors import UserError

# Deflate cannot shrink more than 1032 to 1; pictures hardly shrink at all.
MAX_RATIO = 200
SMALL_BYTES = 100 << 20


def unzip(archive: Path, folder: Path) -> None:
    """Unpacks `archive` to the new folder `folder`; a single top folder of that name is left out.

    Raises:
        UserError: the archive is damaged, encrypted or too large for the disk, or has a member that is a
            link, a device or leaves the folder. `folder` is then not there.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.part-"))
    whole = temporary / "whole"
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            _check(archive, members, room=shutil.disk_usage(temporary).free)
            for member in members:
                file.extract(member, whole)
        inner = whole / folder.name
        alone = inner.is_dir() and len(list(whole.iterdir())) == 1
        (inner if alone else whole).rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive.name} is damaged, cut short or no .zip ({error}); upload it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive} to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(archive: Path, members: list[zipfile.ZipInfo], *, room: int) -> None:
    names = set()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        path = check_member(archive.name, member.filename, is_plain=is_plain)
        if member.flag_bits & 1:
            raise UserError(f"{archive.name} is encrypted; pack it again without a password")
        if path in names:
            raise UserError(f"{archive.name} has two members named {member.filename!r}; pack it again")
        names.add(path)
    total = sum(member.file_size for member in members)
    if total > max(MAX_RATIO * archive.stat().st_size, SMALL_BYTES):
        raise UserError(
            f"{archive.name} would unpack to {total:,} bytes, more than {MAX_RATIO} times its size: "
            "it is no data set"
        )
    if total > room:
        raise UserError(f"{archive.name} unpacks to {total:,} bytes, but the disk has {room:,}; free space")
