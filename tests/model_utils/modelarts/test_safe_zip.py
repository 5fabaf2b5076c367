"""An archive is unpacked whole and inside its folder, or not at all."""

import os
import stat
import zipfile

import pytest

from src.model_utils.modelarts import safe_zip
from tests.helpers.errors import fails


def pack(path, members, *, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def special(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


def refused(archive, folder):
    before = sorted(folder.parent.iterdir())
    message = fails(safe_zip.unzip, archive, folder)
    assert sorted(folder.parent.iterdir()) == before
    assert archive.name in message
    return message


def test_a_single_folder_of_the_name_is_left_out(tmp_path):
    members = [("a/", b""), ("a/x", b"1"), ("a/b/y", b"2")]
    archive = pack(tmp_path / "a.zip", members)
    safe_zip.unzip(archive, tmp_path / "a")
    safe_zip.unzip(archive, tmp_path / "other")
    assert (tmp_path / "a" / "b" / "y").read_bytes() == b"2"
    assert (tmp_path / "other" / "a" / "b" / "y").read_bytes() == b"2"
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a", "other"}


@pytest.mark.parametrize(
    "member",
    ["../x", "a/../../x", "/x", *(special("x", kind) for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR))],
    ids=["parent", "inner parent", "absolute", "link", "fifo", "device"],
)  # fmt: skip
def test_a_dangerous_member_is_refused(tmp_path, member):
    archive = pack(tmp_path / "a.zip", [("good", b"1"), (member, b"/etc/passwd")])
    assert "a link, a device or a path that leaves it" in refused(archive, tmp_path / "a")


def test_absurd_sizes_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip", [("zeros", bytes(1 << 20))])
    safe_zip.unzip(archive, tmp_path / "small")  # a little may shrink a lot
    monkeypatch.setattr(safe_zip, "SMALL_BYTES", 1000)
    assert "more than 200 times its size" in refused(archive, tmp_path / "a")
    archive = pack(tmp_path / "b.zip", [("noise", os.urandom(5000))])
    monkeypatch.setattr(safe_zip.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4000}))
    assert "unpacks to 5,000 bytes, but the disk has 4,000" in refused(archive, tmp_path / "b")


def test_damaged_cut_and_other_files_are_said(tmp_path):
    archive = pack(tmp_path / "a.zip", [("noise", os.urandom(5000))], compression=zipfile.ZIP_STORED)
    data = archive.read_bytes()
    for broken in (data[:3000], data[:100] + b"\0" * 100 + data[200:], b"<html>not found</html>"):
        archive.write_bytes(broken)
        assert "damaged, cut short or no .zip" in refused(archive, tmp_path / "a")


def test_an_encrypted_one_and_one_with_a_name_twice_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = pack(tmp_path / "a.zip", [("x", b"1"), ("x", b"2")])
    assert "two members named 'x'" in refused(archive, tmp_path / "a")
    archive = pack(tmp_path / "a.zip", [("x", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "is encrypted" in refused(archive, tmp_path / "a")
