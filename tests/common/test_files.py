# SPDX-License-Identifier: Apache-2.0
"""Files are whole or absent, whatever goes wrong while they are written."""

import errno
import hashlib
import json
import os

import pytest

from src.common.errors import UserError
from src.common.files import atomic_path, checksum, relative_to, write_json, write_text


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


def test_the_temporary_file_has_the_name_of_the_target_in_a_folder_beside_it(tmp_path):
    with atomic_path(str(tmp_path / "a" / "b" / "curves.png")) as temporary:
        assert temporary.parent.parent == tmp_path / "a" / "b"
        assert temporary.name == "curves.png"
        temporary.write_bytes(b"")
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
