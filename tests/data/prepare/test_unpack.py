import tarfile

import pytest

from src.data.binary import CIFAR10
from src.data.cifar100 import CIFAR100
from src.data.prepare.unpack import unpack
from tests.data.prepare.tars import pack
from tests.helpers.errors import fails

FILES = {
    "batches.meta.txt": b"a\nb\n",
    "data_batch_1.bin": bytes(3073 * 4),
    "test_batch.bin": bytes(3073),
    "readme.html": b"<html>",
}


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "out" / "new"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["cifar-10-batches-bin/", "./", "", "some/where/"])
def test_the_files_of_the_data_set_are_unpacked_and_no_others(tmp_path, folder, mode, prefix):
    members = [special("cifar-10-batches-bin", tarfile.DIRTYPE)]
    members += [(prefix + name, data) for name, data in FILES.items()]
    unpack(CIFAR10, pack(tmp_path / "a.tar", members, mode), folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {name: data for name, data in FILES.items() if name != "readme.html"}


def test_the_files_of_cifar100_are_known_by_their_names(tmp_path, folder):
    files = {"fine_label_names.txt": b"a\n", "train.bin": bytes(3074), "test.bin": bytes(3074)}
    others = {"coarse_label_names.txt": b"b\n", "data_batch_1.bin": b"x", "my_train.bin": b"x"}
    members = [(f"cifar-100-binary/{name}", data) for name, data in {**files, **others}.items()]
    unpack(CIFAR100, pack(tmp_path / "a.tar", members), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize(
    "member",
    [
        ("../test_batch.bin", b"x"),
        ("cifar-10-batches-bin/../../test_batch.bin", b"x"),
        ("/test_batch.bin", b"x"),
        special("test_batch.bin", tarfile.SYMTYPE, "/etc/passwd"),
        special("test_batch.bin", tarfile.LNKTYPE, "batches.meta.txt"),
        special("test_batch.bin", tarfile.FIFOTYPE),
        special("test_batch.bin", tarfile.CHRTYPE),
    ],
    ids=["parent", "inner parent", "absolute", "symlink", "hard link", "fifo", "device"],
)
def test_an_archive_with_a_dangerous_member_is_refused(tmp_path, folder, member):
    archive = pack(tmp_path / "a.tar", [("batches.meta.txt", b"a\n"), member])
    message = fails(unpack, CIFAR10, archive, folder)
    assert "test_batch.bin" in message
    assert [path.name for path in folder.iterdir()] == ["batches.meta.txt"]
    assert not (tmp_path / "out" / "test_batch.bin").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_truncated_archive_is_said(tmp_path, folder, mode):
    whole = pack(tmp_path / "whole.tar", list(FILES.items())[:2] * 1, mode).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: 6000 if mode == "w" else len(whole) * 2 // 3])
    assert "cut short" in fails(unpack, CIFAR10, cut, folder)


def test_a_damaged_archive_and_one_of_another_kind_are_said(tmp_path, folder):
    data = bytearray(pack(tmp_path / "a.tar", list(FILES.items())).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    assert "damaged" in fails(unpack, CIFAR10, tmp_path / "a.tar", folder)
    (tmp_path / "b.tar").write_bytes(b"<html>not found</html>")
    assert "not a tar archive" in fails(unpack, CIFAR10, tmp_path / "b.tar", folder)


def test_an_archive_of_something_else_is_said(tmp_path, folder):
    archive = pack(tmp_path / "a.tar", [("cifar-10-batches-py/data_batch_1", b"x")])
    assert "cifar-10-binary.tar.gz" in fails(unpack, CIFAR10, archive, folder)


def test_an_archive_with_two_data_sets_is_refused(tmp_path, folder):
    archive = pack(tmp_path / "a.tar", [("one/batches.meta.txt", b"a\n"), ("two/batches.meta.txt", b"b\n")])
    assert "two files named batches.meta.txt" in fails(unpack, CIFAR10, archive, folder)


def test_a_missing_archive_and_a_missing_folder_are_said(tmp_path, folder):
    assert "No such file" in fails(unpack, CIFAR10, tmp_path / "none.tar", folder)
    archive = pack(tmp_path / "a.tar", list(FILES.items()))
    assert "cannot unpack" in fails(unpack, CIFAR10, archive, folder / "missing")
