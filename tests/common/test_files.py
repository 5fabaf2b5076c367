"""Files are whole or absent, whatever goes wrong while they are written."""

import errno
import hashlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from src.common import files
from src.common.errors import UserError
from src.common.files import atomic_path, checksum, new_folder, relative_to, write_json, write_text


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_is_there_until_the_block_ends(tmp_path):
    path = tmp_path / "weights.ckpt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new, in p")
        assert path.read_text() == "old"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["weights.ckpt"]


def test_the_temporary_file_has_the_folder_and_the_suffix_of_the_target(tmp_path):
    with atomic_path(str(tmp_path / "a" / "b" / "curves.png")) as temporary:
        assert temporary.parent == tmp_path / "a" / "b"
        assert temporary.suffix == ".png"
        assert temporary.name != "curves.png"
    assert _names(tmp_path / "a" / "b") == ["curves.png"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert _names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError("the writer failed"), KeyboardInterrupt(), UserError("mine")])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file.txt"]


def test_the_data_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    synced = []

    def watch(handle):
        synced.append((os.pread(handle, 99, 0), path.exists()))

    monkeypatch.setattr(os, "fsync", watch)
    write_text(path, "data")
    assert synced == [(b"data", False)]


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*runs/metrics\.json"):
        write_json(tmp_path / "runs" / "metrics.json", {})
    assert (tmp_path / "runs").read_text() == "in the way"


def test_others_may_read_the_file(tmp_path):
    write_text(tmp_path / "file.txt", "x")
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


def test_text_is_utf8_and_lines_end_as_written(tmp_path):
    write_text(tmp_path / "file.txt", "größer\n图\n")
    assert (tmp_path / "file.txt").read_bytes() == "größer\n图\n".encode()


def test_json_is_readable_by_people_and_by_json(tmp_path):
    value = {"name": "图", "top1": 94.12, "list": [1, None, True]}
    write_json(tmp_path / "file.json", value)
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.startswith('{\n  "name": "图",\n')
    assert text.endswith("}\n")


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"x": object()})
    assert (tmp_path / "file.json").read_text() == "1\n"
    assert _names(tmp_path) == ["file.json"]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_checksum_is_over_all_files(tmp_path, kind):
    parts = [bytes(range(256)) * 8192, b"more"]
    for name, content in zip("ab", parts):
        (tmp_path / name).write_bytes(content)
    expected = hashlib.new(kind, b"".join(parts)).hexdigest()
    assert checksum(tmp_path / "a", tmp_path / "b", kind=kind) == expected


def test_a_message_says_what_a_path_is_relative_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative_to("data") == f" (relative to {tmp_path})"
    assert relative_to(tmp_path / "data") == ""


class TestNewFolder:
    def test_it_is_whole_or_absent(self, tmp_path):
        with new_folder(tmp_path / "a" / "b") as folder:
            (folder / "x").write_text("1")
            assert not (tmp_path / "a" / "b").exists()
        assert _texts(tmp_path) == {"a/b/x": "1"}

    def test_another_folder_is_left_alone_and_an_empty_one_filled(self, tmp_path):
        (tmp_path / "b").mkdir()
        with new_folder(tmp_path / "b") as folder:
            (folder / "x").write_text("1")
        with pytest.raises(UserError, match="b: is there already"), new_folder(tmp_path / "b"):
            pass
        with pytest.raises(UserError, match="x: is a file"), new_folder(tmp_path / "b" / "x"):
            pass
        assert _texts(tmp_path) == {"b/x": "1"}

    def test_one_that_comes_meanwhile_stays(self, tmp_path):
        with pytest.raises(UserError, match=r"cannot write .*b: "), new_folder(tmp_path / "b") as folder:
            (folder / "x").write_text("new")
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "mine").write_text("1")
        assert _texts(tmp_path) == {"b/mine": "1"}

    @pytest.mark.parametrize("in_one_step", [True, False])
    def test_the_old_one_is_there_until_the_end_and_then_gone(self, tmp_path, monkeypatch, in_one_step):
        if not in_one_step:
            monkeypatch.setattr(files, "_exchange", lambda *_: False)
        _fill(tmp_path / "b", "old")
        with new_folder(tmp_path / "b", replace=True) as folder:
            (folder / "y").write_text("new")
            assert (tmp_path / "b" / "x").read_text() == "old"
        assert _texts(tmp_path) == {"b/y": "new"}
        assert _names(tmp_path) == ["b"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_a_failure_leaves_the_old_one(self, tmp_path, monkeypatch, error):
        """Also one between the two renames of a file system that cannot swap names."""
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
        really = Path.rename

        def rename(self, target):
            if self.name == "new":
                raise error
            return really(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        _fill(tmp_path / "b", "old")
        with (
            pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt),
            new_folder(tmp_path / "b", replace=True) as folder,
        ):
            (folder / "x").write_text("new")
        assert _texts(tmp_path) == {"b/x": "old"}

    def test_an_old_one_that_cannot_come_back_is_kept(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
        really = Path.rename

        def rename(self, target):
            if target == tmp_path / "b":
                raise OSError(5, "Input/output error")
            return really(self, target)

        _fill(tmp_path / "b", "old")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(UserError, match="Input/output"), new_folder(tmp_path / "b", replace=True):
                pass
        assert not (tmp_path / "b").exists()
        with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "b", replace=True):
            raise ZeroDivisionError
        assert _texts(tmp_path) == {"b/x": "old"}

    def test_a_link_is_followed(self, tmp_path):
        _fill(tmp_path / "disk" / "b", "old")
        (tmp_path / "link").symlink_to(tmp_path / "disk" / "b")
        with new_folder(tmp_path / "link", replace=True) as folder:
            (folder / "x").write_text("new")
        assert (tmp_path / "link").is_symlink() and _texts(tmp_path / "disk") == {"b/x": "new"}


class TestLeftOvers:
    def test_of_a_living_process_and_of_others_stay(self, tmp_path):
        """A folder that only has such a name, one of another target, and one that is in use."""
        mine = [".b.library", ".quartet-tmp-b-abcdefgh", ".quartet-tmp-b-x-abcdefgh", ".quartet-tmp-b-short"]
        for name in mine:
            _fill(tmp_path / name, "mine")
        (tmp_path / ".quartet-tmp-b-c-abcdefgh" / "old").mkdir(parents=True)
        (tmp_path / ".quartet-tmp-b-c-abcdefgh" / "made-by-quartet").touch()
        before = _names(tmp_path)
        with new_folder(tmp_path / "b") as first, new_folder(tmp_path / "b", replace=True) as second:
            assert first.is_dir() and second.is_dir()
            with atomic_path(tmp_path / "b.txt"), atomic_path(tmp_path / "b.txt") as other:
                assert other.exists()
        assert _names(tmp_path) == sorted([*before, "b", "b.txt"])

    @pytest.mark.parametrize("in_one_step", [True, False])
    def test_killed_at_any_line(self, tmp_path, monkeypatch, in_one_step):
        """The old or the new folder is whole, at the latest after the next call. Nothing else stays."""
        if not in_one_step:
            monkeypatch.setattr(files, "_exchange", lambda *_: False)
        target = tmp_path / "b"

        def replace(content):
            with new_folder(target, replace=True) as folder:
                _fill(folder, content)

        replace("0")
        seen = set()
        for number in range(1, 200):
            if not _killed_at(number, lambda: replace("new")):
                break
            seen.add(target.exists())
            if in_one_step:
                assert _texts(target) in ({"x": "0", "y": "0"}, {"x": "new", "y": "new"})
            with pytest.raises(ZeroDivisionError), new_folder(target, replace=True):
                raise ZeroDivisionError  # a call that fails brings back what stood there, too
            assert _texts(target) in ({"x": "0", "y": "0"}, {"x": "new", "y": "new"})
            assert _names(tmp_path) == ["b"]
            replace("0")
        assert 30 < number < 199 and seen == ({True} if in_one_step else {True, False})

    def test_a_file_killed_at_any_line(self, tmp_path):
        path = tmp_path / "b.txt"
        write_text(path, "old")
        for number in range(1, 100):
            if not _killed_at(number, lambda: write_text(path, "new")):
                break
            assert path.read_text() in ("old", "new")
            write_text(path, "old")
            assert _names(tmp_path) == ["b.txt"]
        assert 10 < number < 99


def _fill(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name in "xy":
        (folder / name).write_text(content)
    if content == "old":
        (folder / "y").unlink()


def _texts(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def _killed_at(number, call):
    """Calls in a process that kills itself at its `number`th line of files.py; false if it has fewer."""
    child = os.fork()
    if child == 0:
        lines = itertools.count(1)

        def trace(frame, event, _):
            if frame.f_code.co_filename != files.__file__:
                return None
            if event == "line" and next(lines) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            call()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0
