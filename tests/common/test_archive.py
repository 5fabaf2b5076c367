# SPDX-License-Identifier: Apache-2.0
"""An archive is read whole, stays inside its folder, and every damage is a line."""

import os
import stat
import tarfile
import zipfile

import pytest

from src.common import archive as module
from src.common.archive import reading, unpack
from src.common.errors import UserError
from tests.data.prepare.tars import pack
from tests.helpers.errors import fails

KINDS = ["w", "w:gz", "w:bz2", "w:xz", "zip"]


def zipped(path, members, *, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def packed(path, members, kind):
    return zipped(path, members) if kind == "zip" else pack(path, members, kind)


def in_zip(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info, b"/etc/passwd"


def in_tar(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def refused(archive, folder):
    message = fails(unpack, archive, folder)
    assert str(archive) in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_all_files_are_unpacked(tmp_path, kind):
    archive = packed(tmp_path / "a", [("one/x", b"1" * 9000), ("./two", b"2"), ("one/in/y", b"")], kind)
    unpack(archive, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files}
    assert found == {"one/x": b"1" * 9000, "two": b"2", "one/in/y": b""}


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name, kind):
    archive = packed(tmp_path / "a", [("good", b"1"), (name, b"x")], kind)
    assert repr(name) in refused(archive, tmp_path / "in" / "out")
    assert not (tmp_path / "x").exists() and not (tmp_path / "in" / "x").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_in_a_zip_is_refused_before_anything_is_written(tmp_path, kind):
    archive = zipped(tmp_path / "a.zip", [("good", b"1"), in_zip("x", kind)])
    assert "the member 'x', a link, a device" in refused(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path, kind):
    archive = pack(tmp_path / "a.tar", [("good", b"1"), in_tar("x", kind)])
    assert "the member 'x', a link, a device" in refused(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_damaged_or_of_another_kind_is_said(tmp_path, kind):
    whole = packed(
        tmp_path / "a", [("noise", os.urandom(5000)), ("more", os.urandom(5000))], kind
    ).read_bytes()
    broken = [whole[: len(whole) * share // 10] for share in (1, 4)] + [b"<html>not found</html>"]
    if kind in ("w:gz", "w:xz", "zip"):  # those with checksums
        broken.append(whole[:3000] + b"\0" * 100 + whole[3100:])
    for number, data in enumerate(broken):
        (tmp_path / "b").write_bytes(data)
        assert "damaged, cut short or no .zip or tar" in refused(tmp_path / "b", tmp_path / str(number))


def test_damage_that_the_reader_meets_is_told_too(tmp_path):
    data = bytearray(zipped(tmp_path / "a", [("x", os.urandom(5000))], compression=0).read_bytes())
    data[2000] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UserError, match="damaged"), reading(tmp_path / "a") as members:
        for _, file in members:
            file.read()


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
def test_absurd_sizes_are_refused(tmp_path, monkeypatch, kind):
    archive = packed(tmp_path / "a", [("zeros", bytes(1 << 20))], kind)
    unpack(archive, tmp_path / "small")  # a little may shrink a lot
    monkeypatch.setattr(module, "SMALL_BYTES", 1000)
    assert "over 200 times its size" in refused(archive, tmp_path / "out")


def test_a_name_twice_and_a_password_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zipped(tmp_path / "a.zip", [("x", b"1"), ("x", b"2")])
    assert "two members named 'x'" in refused(archive, tmp_path / "out")
    archive = pack(tmp_path / "a.tar", [("x", b"1"), ("./x", b"2")])
    assert "two members named './x'" in refused(archive, tmp_path / "out")
    data = bytearray(zipped(tmp_path / "b.zip", [("x", b"1")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    assert "is encrypted" in refused(tmp_path / "b.zip", tmp_path / "other")


def test_what_cannot_be_read_or_written_is_said(tmp_path):
    assert "No such file" in refused(tmp_path / "none", tmp_path / "out")
    (tmp_path / "file").write_text("")
    archive = pack(tmp_path / "a.tar", [("x", b"1")])
    assert "cannot unpack" in refused(archive, tmp_path / "file" / "out")
