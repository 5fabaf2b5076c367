# SPDX-License-Identifier: Apache-2.0
"""A folder is whole or absent, what stood there stays until then, and only what we made is ever removed."""

import errno
import os

import pytest

from src.common import files
from src.common.errors import UserError
from src.common.files import MARKER, atomic_path, new_folder
from tests.helpers.kills import killed_at


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def fill(folder, text):
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "sub" / "b.txt").write_text(text)


def made(target, text, **options):
    with new_folder(target, **options) as folder:
        fill(folder, text)


def whole(target):
    """The text that all files of a whole folder hold."""
    (text,) = {(target / name).read_text() for name in ("a.txt", "sub/b.txt")}
    assert {path.name for path in target.rglob("*")} - {MARKER} == {"a.txt", "sub", "b.txt"}
    return text


def without_exchange(monkeypatch):
    """As on a file system that cannot exchange two names."""
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())


def test_the_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "a" / "new") as folder:
        fill(folder, "x")
        assert not (tmp_path / "a" / "new").exists() and folder.name == "new"
    assert whole(tmp_path / "a" / "new") == "x"
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "new"]
    assert (tmp_path / "a" / "new").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_we_did_not_make_is_refused_and_stays(tmp_path, kind, replace):
    target = tmp_path / "photos"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "mine").write_text("mine")
        target.symlink_to("elsewhere")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="exists already; remove it or choose another name"):
        made(target, "new", replace=replace)
    assert contents(tmp_path) == before


def test_hidden_folders_beside_it_stay(tmp_path):
    """Names that were once taken for leftovers, or that only look like ours, belong to the user."""
    for name in (".photos.library", ".photos.d", ".quartet-tmp-photos-mine", ".quartet-made"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("mine")
    before = contents(tmp_path)
    made(tmp_path / "photos", "x")
    with atomic_path(tmp_path / "photos.txt") as path:
        path.write_text("x")
    assert {
        name: value for name, value in contents(tmp_path).items() if not name.startswith("photos")
    } == before


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_that_we_made_is_replaced(tmp_path, monkeypatch, exchange):
    if not exchange:
        without_exchange(monkeypatch)
    target = tmp_path / "export"
    made(target, "old", replace=True)
    with new_folder(target, replace=True) as folder:
        fill(folder, "new")
        assert whole(target) == "old"
    assert whole(target) == "new" and list(tmp_path.iterdir()) == [target]
    (tmp_path / "link").symlink_to("export")
    made(tmp_path / "link", "newer", replace=True)
    assert whole(target) == "newer" and (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt"])
def test_a_folder_with_a_file_of_the_users_is_not_replaced(tmp_path, name):
    target = tmp_path / "export"
    made(target, "old", replace=True)
    (target / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"also holds {name}, which is not replaced"):
        made(target, "new", replace=True)
    with pytest.raises(UserError, match="exists already"):
        made(target, "new")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("failed"), UserError("mine")])
def test_a_failure_leaves_what_was(tmp_path, error):
    target = tmp_path / "export"
    made(target, "old", replace=True)
    before = contents(tmp_path)
    with pytest.raises(type(error)) as caught, new_folder(target, replace=True) as folder:
        (folder / "half").write_text("x")
        raise error
    assert caught.value is error and contents(tmp_path) == before


def test_an_exchange_that_fails_half_way_puts_the_old_folder_back(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    target, real = tmp_path / "export", os.rename
    made(target, "old", replace=True)

    def rename(source, destination, **options):
        if os.fspath(destination) == os.fspath(target) and "new" in os.fspath(source):
            raise OSError(errno.EIO, "Input/output error")
        real(source, destination, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(UserError, match=r"cannot write .*export: Input/output error"):
        made(target, "new", replace=True)
    assert whole(target) == "old" and list(tmp_path.iterdir()) == [target]


def test_an_old_folder_that_cannot_come_back_at_once_is_kept(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    target, real = tmp_path / "export", os.rename
    made(target, "old", replace=True)

    def rename(source, destination, **options):
        if os.fspath(destination) == os.fspath(target):
            raise OSError(errno.EIO, "Input/output error")
        real(source, destination, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(UserError, match="Input/output error"):
            made(target, "new", replace=True)
    assert not target.exists()
    with pytest.raises(ZeroDivisionError), new_folder(target, replace=True):
        raise ZeroDivisionError  # a call that fails brings back what stood there, too
    assert whole(target) == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("stands", [True, False])
def test_a_kill_at_any_line_loses_nothing_and_the_next_call_completes(
    tmp_path, monkeypatch, stands, exchange
):
    if not exchange:
        without_exchange(monkeypatch)
    number = 1
    while True:
        folder = tmp_path / str(number)
        target = folder / "export"
        if stands:
            made(target, "old", replace=True)
        killed = killed_at(lambda target=target: made(target, "new", replace=True), number, module=files)
        if exchange and (stands or target.exists()):
            assert whole(target) in ("old", "new")
        with atomic_path(folder / "other.txt") as other:  # any next call in this folder puts things right
            other.write_text("x")
        assert not stands or whole(target) in ("old", "new")
        assert {path.name for path in folder.iterdir()} <= {"export", "other.txt"}
        made(target, "newer", replace=True)
        assert whole(target) == "newer"
        if not killed:
            break
        number += 1
    assert number > 60


def test_a_kill_at_any_line_leaves_a_file_whole_and_the_next_call_cleans(tmp_path):
    path, number, killed = tmp_path / "white.ckpt", 1, True

    def write(text):
        with atomic_path(path) as temporary:
            temporary.write_text(text)

    while killed:
        write("old")
        killed = killed_at(lambda: write("new"), number, module=files)
        assert path.read_text() in ("old", "new")
        write("newer")
        assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]
        number += 1
    assert number > 40


def test_what_another_live_process_makes_is_not_taken_for_a_leftover(tmp_path):
    with new_folder(tmp_path / "a") as first, atomic_path(tmp_path / "b") as second:
        fill(first, "first")
        second.write_text("second")
        child = os.fork()
        if child == 0:
            made(tmp_path / "a", "child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert whole(first) == "first" and second.read_text() == "second"
        (tmp_path / "a").rename(tmp_path / "of the child")
    assert whole(tmp_path / "a") == "first" and whole(tmp_path / "of the child") == "child"


def test_without_locks_in_the_file_system_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.lock.fcntl, "flock", flock)
    with new_folder(tmp_path / "a") as first:
        fill(first, "first")
        made(tmp_path / "b", "second")
    assert whole(tmp_path / "a") == "first" and whole(tmp_path / "b") == "second"
    assert len(list(tmp_path.iterdir())) == 2
