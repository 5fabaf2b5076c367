# SPDX-License-Identifier: Apache-2.0
"""Image files are looked at once, and again where they have changed."""

import os
import shutil

import cv2
import numpy as np
import pytest

from src.data import manifest
from src.data.manifest import Manifest, faults_of

PNG = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()


@pytest.fixture
def looked(monkeypatch):
    """The files that are opened."""
    seen = []
    own = manifest.fault

    def fault(file):
        seen.append(os.path.basename(file))
        return own(file)

    monkeypatch.setattr(manifest, "fault", fault)
    monkeypatch.setattr(manifest, "_CHUNK", 2)
    return seen


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for name in "abcde":
        (tmp_path / "data" / "cat" / f"{name}.png").write_bytes(PNG)
    (tmp_path / "data" / "cat" / "b.png").write_bytes(PNG[:-12])
    return tmp_path / "data"


def files_in(folder):
    return sorted(map(str, folder.rglob("*.png")))


def look(seen, files):
    return sum(1 for _ in seen.look_at(files))


def test_each_file_is_opened_once_and_a_damaged_one_twice(folder, looked):
    found = Manifest(folder)
    assert look(found, files_in(folder)) == 3, "a part of two files, three times"
    assert sorted(looked) == ["a.png", "b.png", "b.png", "c.png", "d.png", "e.png"]
    assert found.faults == {str(folder / "cat" / "b.png"): "cannot be decoded: it is cut short"}
    assert faults_of(files_in(folder), root=folder) == found.faults


def test_what_is_in_the_file_is_not_opened_again(folder, tmp_path, looked):
    """Old behaviour: every start, resume and restart opened every file, on every card."""
    found = Manifest(folder)
    look(found, files_in(folder))
    found.write(tmp_path / "images.json")
    looked.clear()
    again = Manifest.read(tmp_path / "images.json", root=folder)
    look(again, files_in(folder))
    assert set(looked) <= {"b.png"} and again.seen == found.seen


def test_what_has_changed_or_is_new_is_opened_again(folder, tmp_path, looked):
    found = Manifest(folder)
    look(found, files_in(folder))
    found.write(tmp_path / "images.json")
    looked.clear()
    cat = folder / "cat"
    cat.joinpath("a.png").write_bytes(PNG[:-12])  # another size
    os.utime(cat / "c.png", (1, 1))  # another time
    cat.joinpath("b.png").write_bytes(PNG)  # mended
    cat.joinpath("d.png").unlink()
    cat.joinpath("f.png").write_bytes(PNG)
    again = Manifest.read(tmp_path / "images.json", root=folder)
    look(again, files_in(folder))
    assert sorted(set(looked)) == ["a.png", "b.png", "c.png", "f.png"]
    assert list(again.faults) == [str(cat / "a.png")]
    assert sorted(again.seen) == files_in(folder), "what is gone is forgotten"


def test_a_data_set_that_was_moved_needs_no_new_look(folder, tmp_path, looked):
    found = Manifest(folder)
    look(found, files_in(folder))
    found.write(tmp_path / "images.json")
    shutil.move(folder, tmp_path / "other")
    looked.clear()
    again = Manifest.read(tmp_path / "images.json", root=tmp_path / "other")
    look(again, files_in(tmp_path / "other"))
    assert set(looked) <= {"b.png"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1}', '{"a": [1, 2]}', '{"a": ["x", 2, null]}', "\xff"]
)
def test_a_damaged_manifest_is_as_none(folder, tmp_path, text):
    (tmp_path / "images.json").write_text(text, encoding="latin-1")
    assert Manifest.read(tmp_path / "images.json", root=folder).seen == {}
    assert Manifest.read(tmp_path / "none.json", root=folder).seen == {}


def test_names_that_are_no_text(folder, tmp_path):
    odd = os.fsdecode(os.fsencode(folder / "cat") + b"/\xff\n.png")
    with open(odd, "wb") as file:
        file.write(PNG)
    found = Manifest(folder)
    look(found, [odd])
    found.write(tmp_path / "images.json")
    assert Manifest.read(tmp_path / "images.json", root=folder).seen == found.seen != {}


def test_a_look_that_the_system_failed_once_is_no_damage(folder, monkeypatch):
    said = iter(["cannot be decoded: Input/output error", None])
    monkeypatch.setattr(manifest, "fault", lambda file: next(said))
    assert faults_of([str(folder / "cat" / "a.png")], root=folder) == {}


def test_the_look_is_progress_for_the_launcher(folder, monkeypatch, looked):
    made = []
    monkeypatch.setattr(manifest.heartbeat, "progress", lambda: made.append(1))
    faults_of(files_in(folder), root=folder)
    assert len(made) == 3
